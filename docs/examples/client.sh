#!/bin/sh
# One mail to each recipient, by the daemon; sh, nc and what is on every Unix is
# all it needs.
#
#     sh client.sh mx.example 25 sender@bar.de message.eml < recipients
#
# A line for each as soon as it is decided: recipient, verdict, the reply as JSON.
#
# nc has to say so when its input ends.  OpenBSD's does with -N; others by
# themselves (NC=ncat, NC="busybox nc"); Debian's netcat-traditional never does.
set -eu
export LC_ALL=C # Octets are octets.

# Mails under way: so many go out, and when they have their replies the next
# so many.  Fewer than --max-in-flight, at which the daemon would stop reading.
window=100
# Seconds for a mail, its waiting in the daemon included.  There is a reply by
# then, so a connection that is silent for longer is dead (-w).  Less than
# --key-ttl, for which the daemon keeps a reply that was lost on the way.
deadline=300

daemon=${DAEMON:-localhost:7025}
nc=${NC:-nc -N -w $((deadline + 30))}
tab=$(printf '\t')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A name for this run.  Where a second run is not to send twice either, keep it
# with the list.
run=$(date +%s)-$$
[ -z "${TOKEN_FILE-}" ] || sed 's/.*/{"token":"&"}/;q' "$TOKEN_FILE" >"$work/token"
request="\"deadline\":$deadline,\"host\":\"$1\",\"port\":$2,\"sender\":\"$3\""
message=$(base64 <"$4" | tr -d '\n')
# Recipients as they stand in JSON.
sed 's/[\\"]/\\&/g; /^$/d' >"$work/todo"
exec 3<"$work/todo"
: >"$work/waiting"

# As the daemon writes them: the id first, and no blanks.
id='^{"id":"[0-9]* \(.*\)","status":'
ok='"ok".*,"status":"\([A-Za-z]*\)","response":\(".*"\),"code":'
error='"error","error":"\([A-Za-z]*\)","message":\(".*"\),"temporary":'
# What is in doubt may have been delivered.  What is temporary and not in doubt
# may be sent again without a second thought.
verdicts() {
    sed -n -e "s/$id$ok.*/\1$tab\2$tab\3/p" \
        -e "s/$id$error[a-z]*,\"indoubt\":true.*/\1$tab\2 (in doubt)$tab\3/p" \
        -e "s/$id${error}true.*/\1$tab\2 (temporary)$tab\3/p" \
        -e "s/$id${error}false.*/\1$tab\2$tab\3/p"
}

number=0 waiting=0 failures=0
while
    while [ "$waiting" -lt "$window" ] && IFS= read -r recipient <&3; do
        number=$((number + 1)) waiting=$((waiting + 1))
        printf '{"id":"%s %s","key":"%s-%s",%s,"recipients":["%s"],"message":"%s"}\n' \
            "$number" "$recipient" "$run" "$number" "$request" "$recipient" "$message" >>"$work/waiting"
    done
    [ "$waiting" -gt 0 ]
do
    { [ -z "${TOKEN_FILE-}" ] || cat "$work/token"; cat "$work/waiting"; } |
        $nc "${daemon%:*}" "${daemon##*:}" >"$work/heard" || : # Lost or refused: what came counts.
    # The start of a reply is none: "read" fails on a line that does not end.
    while IFS= read -r line; do printf '%s\n' "$line"; done <"$work/heard" >"$work/replies"
    ! grep '^{"status":"error"' "$work/replies" >&2 || exit 1 # The token's.
    verdicts <"$work/replies"

    # What has no reply goes again as it stands, by the key that it had.
    # Whether it was sent, is being sent or never came: it is sent once.
    sed -n 's/^\({"id":"[0-9]* \).*/^\1/p' "$work/replies" >"$work/answered"
    grep -v -f "$work/answered" "$work/waiting" >"$work/again" || :
    mv "$work/again" "$work/waiting"
    answered=$(wc -l <"$work/answered") waiting=$(wc -l <"$work/waiting")
    # At once, then ever more slowly: a minute and a half in all.
    if [ "$answered" -gt 0 ]; then failures=0; else failures=$((failures + 1)); fi
    [ "$failures" -le 20 ] || { echo "no connection: who is not in the output has no verdict" >&2; exit 1; }
    if [ "$failures" -gt 1 ]; then sleep "$((failures < 6 ? failures - 1 : 5))"; fi
done
