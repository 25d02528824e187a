// A load generator for benches: one thread, epoll, HTTP/1.1 to 127.0.0.1, and one line of JSON at the end.
//
//   load PORT CONNECTIONS RATE WARMUP SECONDS CHUNKS HEADERS BODY...
//
// RATE 0: each connection asks again as soon as it has its answer; else so many requests a second, at fixed times, and latencies
// count from the planned time. CHUNKS 0: plain answers; else streams that must have so many chunks and [DONE]. HEADERS are whole
// lines with \r\n; the bodies take turns. An answer that is not 200 and whole is bad. What is under way at the end is waited for,
// so that both sides have counted the same.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_HEAD 16384
#define LONGEST_WAIT_US 60000000

enum { IDLE, HEAD, PLAIN, SIZE, DATA, DATA_END, TRAILER };

typedef struct {
    int fd, state, status, closes, measured, body, stamps, done, first;
    size_t sent, head_size, line;
    long long left;
    uint64_t asked;
    char head[LONGEST_HEAD + 1];
    char tail[24];      // the last bytes, for what is split over two reads
    int tail_size;
} Conn;

typedef struct {
    uint32_t *at;
    size_t n, space;
} Times;

static Conn *conns;
static int poller, port, connections, chunks, bodies, *idle, idle_count;
static double rate;
static char *requests[16];
static size_t request_size[16];
static unsigned long started;
static int measuring, stopping, under_way;
static unsigned long long good, bad, measured_good, reconnects, late, last_status;
static Times first_byte, delivery;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void note(Times *times, uint64_t us) {
    if (times->n == times->space) times->at = realloc(times->at, (times->space = times->space * 2 + 4096) * sizeof *times->at);
    times->at[times->n++] = us > UINT32_MAX ? UINT32_MAX : us;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *name, Times *t) {
    qsort(t->at, t->n, sizeof *t->at, by_size);
    printf(",\"%s\":[", name);
    for (int i = 0; i < 2 && t->n; i++) printf("%s%.3f", i ? "," : "", t->at[(size_t)((i ? 0.99 : 0.5) * (t->n - 1))] / 1000.0);
    printf("]");
}

static void dial(Conn *c) {
    int one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) { perror("connect"); exit(1); }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void over(Conn *c, int is_good);

static void send_on(Conn *c) {
    uint32_t wanted = EPOLLIN;
    while (c->sent < request_size[c->body]) {
        ssize_t n = send(c->fd, requests[c->body] + c->sent, request_size[c->body] - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != ENOTCONN) { c->closes = 1; over(c, 0); return; }
        if (n < 0) { wanted |= EPOLLOUT; break; }
        c->sent += n;
    }
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void ask(Conn *c, uint64_t planned) {
    c->state = HEAD;
    c->body = started++ % bodies;
    c->sent = c->head_size = c->line = 0;
    c->status = c->closes = c->stamps = c->done = c->first = c->tail_size = 0;
    c->measured = measuring;
    c->asked = planned;
    under_way++;
    send_on(c);
}

static void over(Conn *c, int is_good) {
    is_good = is_good && c->status == 200 && (!chunks || (c->done && c->stamps == chunks));
    if (is_good) good++;
    else { bad++; last_status = c->status; }
    if (is_good && c->measured) measured_good++;
    c->state = IDLE;
    under_way--;
    if (c->closes) { close(c->fd); reconnects++; dial(c); }
    if (bad > 10000) stopping = 1;
    if (rate > 0 || stopping) idle[idle_count++] = c - conns;
    else ask(c, now_us());
}

// Bytes of the body: chunks by their stamps, [DONE] at the end; both may be split over two reads.
static void take(Conn *c, const char *data, size_t n) {
    if (!chunks) return;
    static char joined[(1 << 18) + 24];
    uint64_t now = now_us();
    memcpy(joined, c->tail, c->tail_size);
    memcpy(joined + c->tail_size, data, n);
    const char *end = joined + c->tail_size + n, *p = joined, *kept = end;
    for (; (p = memchr(p, '@', end - p)); p += 17) {
        if (end - p < 17) { kept = p; break; }
        c->stamps++;
        if (c->measured) note(&delivery, now - strtoull(p + 1, NULL, 10));
    }
    if (kept == end) {
        kept = end - joined > 5 ? end - 5 : joined;
        if (memmem(joined, end - joined, "[DONE]", 6)) c->done = 1;
        // A stamp that was counted must not be found again.
        if ((p = memchr(kept, '@', end - kept))) kept = p + 1;
    }
    c->tail_size = end - kept;
    memmove(c->tail, kept, c->tail_size);
}

// What was read, through the states of an HTTP/1.1 answer; stops at its end.
static void hear(Conn *c, char *data, size_t n) {
    if (!c->first) {
        c->first = 1;
        if (c->measured) note(&first_byte, now_us() - c->asked);
    }
    while (n && c->state != IDLE) {
        size_t used = n;
        if (c->state == HEAD) {
            if (c->head_size + n > LONGEST_HEAD) { c->closes = 1; over(c, 0); return; }
            memcpy(c->head + c->head_size, data, n);
            char *end = memmem(c->head, c->head_size + n, "\r\n\r\n", 4);
            if (!end) { c->head_size += n; return; }
            used = end + 4 - c->head - c->head_size;
            *end = 0;
            c->status = atoi(c->head + 9);
            char *length = strcasestr(c->head, "\r\ncontent-length:");
            if (strcasestr(c->head, "\r\nconnection: close")) c->closes = 1;
            c->left = length ? atoll(length + 17) : 0;
            c->state = strcasestr(c->head, "\r\ntransfer-encoding: chunked") ? SIZE : PLAIN;
            if (c->state == PLAIN && !c->left) { over(c, 1); return; }
        } else if (c->state == PLAIN || c->state == DATA) {
            if ((long long)used > c->left) used = c->left;
            take(c, data, used);
            if (!(c->left -= used)) {
                if (c->state == PLAIN) { over(c, 1); return; }
                c->state = DATA_END;
            }
        } else { // lines between chunks
            char *newline = memchr(data, '\n', n);
            if (newline) used = newline + 1 - data;
            if (c->state != DATA_END && c->line + used < 64) memcpy(c->head + c->line, data, used);
            c->line += used;
            if (newline) {
                c->head[c->line < 64 ? c->line : 63] = 0;
                if (c->state == DATA_END) c->state = SIZE;
                else if (c->state == SIZE) c->state = (c->left = strtoll(c->head, NULL, 16)) ? DATA : TRAILER;
                else if (c->line <= 2) { over(c, 1); return; }
                c->line = 0;
            }
        }
        data += used;
        n -= used;
    }
}

static void ready(Conn *c, uint32_t events) {
    static char data[1 << 18];
    if (events & EPOLLOUT && c->state != IDLE) send_on(c);
    if (!(events & ~EPOLLOUT)) return;
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n > 0) { hear(c, data, n); return; }
    c->closes = 1;
    if (c->state != IDLE) over(c, 0);
    else { close(c->fd); dial(c); reconnects++; }
}

int main(int argc, char **argv) {
    if (argc < 9) { fprintf(stderr, "usage: load PORT CONNECTIONS RATE WARMUP SECONDS CHUNKS HEADERS BODY...\n"); return 2; }
    port = atoi(argv[1]);
    connections = atoi(argv[2]);
    rate = atof(argv[3]);
    double warmup = atof(argv[4]), seconds = atof(argv[5]);
    chunks = atoi(argv[6]);
    for (int i = 8; i < argc && bodies < 16; i++, bodies++)
        request_size[bodies] = asprintf(&requests[bodies], "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n%s",
                                        argv[7], strlen(argv[i]), argv[i]);
    poller = epoll_create1(0);
    conns = calloc(connections, sizeof *conns);
    idle = calloc(connections, sizeof *idle);
    for (int i = 0; i < connections; i++) dial(&conns[i]);
    uint64_t begin = now_us(), from = begin + warmup * 1e6, until = from + seconds * 1e6, stopped = 0, planned = 0;
    measuring = warmup == 0;
    for (int i = 0; i < connections; i++)
        if (rate > 0) idle[idle_count++] = i;
        else ask(&conns[i], begin);
    for (;;) {
        uint64_t now = now_us(), wake = now + 10000;
        measuring = now >= from && now < until;
        if (now >= until) stopping = 1;
        if (stopping && !stopped) stopped = now;
        if (stopping && (!under_way || now > stopped + LONGEST_WAIT_US)) break;
        for (uint64_t due; rate > 0 && !stopping && (due = begin + planned * 1e6 / rate) <= until; planned++) {
            if (due > now) { if (due < wake) wake = due; break; }
            if (!idle_count) { late += measuring; wake = now + 1000; break; }
            ask(&conns[idle[--idle_count]], due);
        }
        struct epoll_event events[512];
        struct timespec wait = {0, (wake - now) * 1000};
        int n = epoll_pwait2(poller, events, 512, &wait, NULL);
        for (int i = 0; i < n; i++) ready(events[i].data.ptr, events[i].events);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"good\":%llu,\"bad\":%llu,\"last_bad_status\":%llu,\"per_second\":%.1f,\"reconnects\":%llu,\"late\":%llu,\"unfinished\":%d,\"cpu\":%.3f", good, bad, last_status,
           measured_good / seconds, reconnects, late, under_way, cpu);
    print_times("first_byte_ms", &first_byte);
    print_times("delivery_ms", &delivery);
    printf("}\n");
    return 0;
}
