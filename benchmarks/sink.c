/*
 * An SMTP and LMTP server that takes mail, counts it, and keeps nothing: fast
 * enough that the client is what is measured.
 *
 *   cc -O2 -o sink sink.c && ./sink [-p] [-c] [-l] [-d MICROSECONDS]
 *
 *   -p  PIPELINING is not offered
 *   -c  CHUNKING is not offered
 *   -l  LMTP: LHLO, one final reply for each recipient
 *   -d  each batch of replies is held back so long from its own arrival, as if
 *       the network were that far
 *
 * It takes a free port on loopback and prints it as "port N"; at SIGTERM or
 * end of its standard input it prints what it has counted as one JSON object,
 * and ends.  A "turn" is a batch of replies that went out together: what a
 * client may have waited for (the greeting and the reply to QUIT alone are
 * none).
 *
 * One thread.  All that one read has brought is answered with one write.  What
 * cannot be written at once is kept, and that client is not read from until it
 * is gone, so that memory has a bound whatever a client does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum state { COMMAND, DATA, BDAT };

enum { LINE = 2048, READ = 1 << 18 }; /* octets of a command line; of one read */

static const char END_OF_DATA[] = "\r\n.\r\n";

struct connection {
    int fd;
    enum state state;
    bool ready, in_mail, last, quitting, blocked;
    uint32_t recipients, batches; /* batches: that are held back still */
    uint64_t left;                /* octets of the BDAT chunk to come */
    unsigned matched;             /* octets of END_OF_DATA seen */
    size_t line_length;           /* of a command whose LF has not come */
    char line[LINE];
    char *out;
    size_t out_length, out_capacity, out_done;
};

/* Replies that are held back.  One delay for all, so in the order of due. */
struct batch {
    struct connection *connection;
    uint64_t due;
    size_t length;
    bool quitting;
    struct batch *next;
    char octets[];
};

static bool pipelining = true, chunking = true, lmtp;
static uint64_t delay;
static struct batch *first_held, *last_held;
static uint64_t messages, recipients, octets, connections, peak, turns, open_now;
static volatile sig_atomic_t stopped;
static int epoll;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void *allocate(void *old, size_t size)
{
    void *new = realloc(old, size);
    if (!new) {
        perror("sink");
        exit(1);
    }
    return new;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void append(struct connection *c, const char *text, size_t length)
{
    if (c->out_length + length > c->out_capacity) {
        c->out_capacity = (c->out_length + length) * 2;
        c->out = allocate(c->out, c->out_capacity);
    }
    memcpy(c->out + c->out_length, text, length);
    c->out_length += length;
}

static void say(struct connection *c, const char *text)
{
    append(c, text, strlen(text));
}

static void close_connection(struct connection *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
        open_now--;
    }
    if (!c->batches) {
        free(c->out);
        free(c);
    }
}

/* What the client means. */

static void end_content(struct connection *c)
{
    messages++;
    recipients += c->recipients;
    for (uint32_t i = lmtp ? c->recipients : 1; i; i--)
        say(c, "250 2.0.0 Ok: queued as 4bX0tR1kzJz\r\n");
    c->recipients = 0;
    c->in_mail = false;
}

static void end_chunk(struct connection *c)
{
    c->state = COMMAND;
    if (!c->recipients)
        say(c, "503 5.5.1 Error: no recipient\r\n");
    else if (c->last)
        end_content(c);
    else
        say(c, "250 2.0.0 Ok\r\n");
}

static void hello(struct connection *c)
{
    say(c, "250-sink.invalid\r\n");
    if (pipelining)
        say(c, "250-PIPELINING\r\n");
    if (chunking)
        say(c, "250-CHUNKING\r\n");
    say(c, "250-SIZE 104857600\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n");
}

static void begin_chunk(struct connection *c, const char *argument)
{
    char *end;
    c->left = strtoull(argument, &end, 10);
    c->last = !strncasecmp(end, " LAST", 5);
    c->state = BDAT;
    if (!c->left)
        end_chunk(c);
}

static void command(struct connection *c, const char *line)
{
    c->ready = true;
    if (!strncasecmp(line, "RCPT TO:", 8)) {
        if (!c->in_mail) {
            say(c, "503 5.5.1 Error: need MAIL command\r\n");
            return;
        }
        c->recipients++;
        say(c, "250 2.1.5 Ok\r\n");
    } else if (!strncasecmp(line, "MAIL FROM:", 10)) {
        if (c->in_mail) {
            say(c, "503 5.5.1 Error: nested MAIL command\r\n");
            return;
        }
        c->in_mail = true;
        say(c, "250 2.1.0 Ok\r\n");
    } else if (!strncasecmp(line, "BDAT ", 5) && chunking) {
        begin_chunk(c, line + 5);
    } else if (!strncasecmp(line, "DATA", 4)) {
        if (!c->recipients) {
            say(c, "554 5.5.1 Error: no valid recipients\r\n");
            return;
        }
        say(c, "354 End data with <CR><LF>.<CR><LF>\r\n");
        c->state = DATA;
        c->matched = 2; /* the line end of DATA itself: a dot may come at once */
    } else if (!strncasecmp(line, "RSET", 4)) {
        c->in_mail = false;
        c->recipients = 0;
        say(c, "250 2.0.0 Ok\r\n");
    } else if (!strncasecmp(line, lmtp ? "LHLO " : "EHLO ", 5)) {
        hello(c);
    } else if (!strncasecmp(line, "HELO ", 5) && !lmtp) {
        say(c, "250 sink.invalid\r\n");
    } else if (!strncasecmp(line, "NOOP", 4)) {
        say(c, "250 2.0.0 Ok\r\n");
    } else if (!strncasecmp(line, "QUIT", 4)) {
        say(c, "221 2.0.0 Bye\r\n");
        c->quitting = true;
    } else {
        say(c, "502 5.5.2 Error: command not recognized\r\n");
    }
}

/* Each of these takes some of what was read, and says how much. */

static size_t take_line(struct connection *c, char *at, size_t length)
{
    char *lf = memchr(at, '\n', length);
    size_t taken = lf ? (size_t)(lf - at) + 1 : length;
    if (lf && !c->line_length) {
        *lf = 0;
        command(c, at);
        return taken;
    }
    if (c->line_length + taken >= LINE) {
        say(c, "500 5.5.2 Error: line too long\r\n");
        c->quitting = true;
        return length;
    }
    memcpy(c->line + c->line_length, at, taken);
    c->line_length += taken;
    if (lf) {
        c->line[c->line_length] = 0;
        c->line_length = 0;
        command(c, c->line);
    }
    return taken;
}

static size_t take_chunk(struct connection *c, size_t length)
{
    size_t taken = length < c->left ? length : (size_t)c->left;
    octets += taken;
    c->left -= taken;
    if (!c->left)
        end_chunk(c);
    return taken;
}

static size_t take_data(struct connection *c, const char *at, size_t length)
{
    size_t i = 0;
    while (i < length) {
        if (!c->matched) {
            const char *cr = memchr(at + i, '\r', length - i);
            if (!cr) {
                i = length;
                break;
            }
            i = (size_t)(cr - at);
        }
        char octet = at[i++];
        if (octet == END_OF_DATA[c->matched])
            c->matched++;
        else
            c->matched = octet == '\r';
        if (c->matched == sizeof END_OF_DATA - 1) {
            c->state = COMMAND;
            end_content(c);
            break;
        }
    }
    octets += i;
    return i;
}

static void take(struct connection *c, char *at, size_t length)
{
    while (length && !c->quitting) {
        size_t taken = c->state == COMMAND ? take_line(c, at, length)
                       : c->state == BDAT  ? take_chunk(c, length)
                                           : take_data(c, at, length);
        at += taken;
        length -= taken;
    }
}

/* What goes out. */

static void watch(struct connection *c)
{
    struct epoll_event event = {.events = c->blocked ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* Write what there is; false: the connection is gone. */
static bool flush(struct connection *c)
{
    while (c->out_done < c->out_length) {
        ssize_t written = write(c->fd, c->out + c->out_done, c->out_length - c->out_done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN) {
            if (!c->blocked) {
                c->blocked = true;
                watch(c);
            }
            return true;
        }
        if (written < 0) {
            close_connection(c);
            return false;
        }
        c->out_done += (size_t)written;
    }
    c->out_done = c->out_length = 0;
    if (c->blocked) {
        c->blocked = false;
        watch(c);
    }
    if (c->quitting && !c->batches) {
        close_connection(c);
        return false;
    }
    return true;
}

static void hold_back(struct connection *c, uint64_t due)
{
    struct batch *batch = allocate(NULL, sizeof *batch + c->out_length);
    *batch = (struct batch){.connection = c, .due = due, .length = c->out_length};
    memcpy(batch->octets, c->out, c->out_length);
    c->out_length = 0;
    c->batches++;
    if (last_held)
        last_held->next = batch;
    else
        first_held = batch;
    last_held = batch;
}

static void answer(struct connection *c)
{
    if (!c->out_length)
        return;
    if (c->ready && !c->quitting)
        turns++;
    if (delay)
        hold_back(c, now() + delay);
    else
        flush(c);
}

static void let_go(uint64_t time)
{
    while (first_held && first_held->due <= time) {
        struct batch *batch = first_held;
        struct connection *c = batch->connection;
        first_held = batch->next;
        if (!first_held)
            last_held = NULL;
        c->batches--;
        if (c->fd >= 0) {
            append(c, batch->octets, batch->length);
            flush(c);
        } else {
            close_connection(c);
        }
        free(batch);
    }
}

/* The sockets. */

static void serve(struct connection *c)
{
    static char buffer[READ];
    if (c->blocked) {
        flush(c);
        return;
    }
    for (;;) {
        ssize_t length = read(c->fd, buffer, sizeof buffer);
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (length <= 0) {
            close_connection(c);
            return;
        }
        take(c, buffer, (size_t)length);
        /* More of the same flight may be there. */
        if ((size_t)length < sizeof buffer || c->quitting)
            break;
    }
    answer(c);
}

static void accept_all(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = allocate(NULL, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        connections++;
        if (++open_now > peak)
            peak = open_now;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        say(c, "220 sink.invalid ESMTP\r\n");
        answer(c);
    }
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &length)) {
        perror("sink");
        exit(1);
    }
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static int options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "pcld:")) != -1)
        switch (option) {
        case 'p': pipelining = false; break;
        case 'c': chunking = false; break;
        case 'l': lmtp = true; break;
        case 'd': delay = strtoull(optarg, NULL, 10); break;
        default: return 0;
        }
    return optind == argc;
}

static int milliseconds_to_wait(void)
{
    if (!first_held)
        return -1;
    uint64_t time = now();
    return first_held->due <= time ? 0 : (int)((first_held->due - time + 999) / 1000);
}

int main(int argc, char **argv)
{
    if (!options(argc, argv)) {
        fprintf(stderr, "usage: sink [-p] [-c] [-l] [-d microseconds]\n");
        return 64;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    /* Without SA_RESTART, so that a signal ends the wait. */
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    /* In data.ptr: NULL is the listener, &stopped is standard input. */
    int listener = listen_on_loopback();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN}, got[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = (void *)&stopped;
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    while (!stopped) {
        int count = epoll_wait(epoll, got, 512, milliseconds_to_wait());
        for (int i = 0; i < count; i++) {
            if (!got[i].data.ptr)
                accept_all(listener);
            else if (got[i].data.ptr == (void *)&stopped)
                stopped = 1;
            else
                serve(got[i].data.ptr);
        }
        if (first_held)
            let_go(now());
    }
    printf("{\"messages\": %" PRIu64 ", \"recipients\": %" PRIu64 ", \"octets\": %" PRIu64
           ", \"connections\": %" PRIu64 ", \"peak\": %" PRIu64 ", \"turns\": %" PRIu64 "}\n",
           messages, recipients, octets, connections, peak, turns);
    return 0;
}
