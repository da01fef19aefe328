"""
Faults, cancels, sizes and connections at random: each mail has one result, and a true one.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.client.departing import departing
from tests.client.mailing import OUTLASTS_A_TIMEOUT, WAYS, Mailing
from twisted_smtpclient.testing import Action, Fault, Stage

BYE = b"421 4.3.2 too much for today\r\n"
REFUSALS = (b"451 4.3.0 later\r\n", b"550 5.7.1 no\r\n")
OF_A_MAIL = [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA, Stage.BDAT]
FAULTS = st.one_of(
    st.builds(
        Fault,
        at=st.sampled_from([Stage.GREETING, Stage.EHLO, Stage.RSET, Stage.QUIT, *OF_A_MAIL]),
        do=st.sampled_from([Action.CLOSE, Action.RESET, Action.STALL, Action.REPLY_AND_CLOSE]),
        reply=st.just(BYE),
        nth=st.integers(1, 8),
        connection=st.integers(1, 4),
    ),
    st.builds(
        Fault,
        at=st.just(Stage.CONTENT),
        do=st.sampled_from([Action.CLOSE, Action.RESET, Action.STALL, Action.DEAF]),
        after_octets=st.sampled_from([1, 10, 5000, 70_000]),
        nth=st.integers(1, 8),
        connection=st.integers(1, 4),
    ),
    st.builds(
        Fault,
        at=st.sampled_from(OF_A_MAIL),
        do=st.just(Action.REPLY),
        reply=st.sampled_from(REFUSALS),
        nth=st.integers(1, 20),
    ),
)


@given(
    at_the_end=st.booleans(),
    way=st.sampled_from([*WAYS]),
    connections=st.integers(1, 3),
    depth=st.integers(1, 10),
    split=st.sampled_from([None, 16, 100]),
    delay=st.sampled_from([0.0, 1.0]),
    faults=st.lists(FAULTS, max_size=6),
    sizes=st.lists(st.sampled_from([22, 3000, 300_000]), min_size=1, max_size=25),
    alone=st.sets(st.integers(0, 24), max_size=3),
    cancels=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 24)), max_size=4),
)
def test_whatever_happens_each_mail_has_one_result_and_a_true_one(
    at_the_end: bool,
    way: str,
    connections: int,
    depth: int,
    split: int | None,
    delay: float,
    faults: list[Fault],
    sizes: list[int],
    alone: set[int],
    cancels: list[tuple[int, int]],
) -> None:
    with departing(at_the_end):
        here = Mailing(
            connections=connections, depth=depth, split=split, delay=delay, faults=faults, **WAYS[way]
        )
        for number, size in enumerate(sizes):
            here.post(message=b"x" * (size - 2) + b"\r\n", reuse=number not in alone)
        for steps, number in sorted(cancels):
            for _ in range(steps):
                here.step()
            if delay:
                here.network.elapse(delay / 2, step=delay / 2)
            here.results[number % len(sizes)].cancel()
        here.network.elapse(6 * OUTLASTS_A_TIMEOUT, step=50.0)
        here.check()
        here.close()
