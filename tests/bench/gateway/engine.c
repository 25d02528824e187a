// A mock engine for benches: one thread, epoll, no thinking. `engine PORT...` serves on 127.0.0.1 until it is killed.
//
// The request's body steers the answer, with fields that every gateway lets through:
//   "max_tokens": chunks of a stream (sglang-router makes "max_completion_tokens" of it);
//   "seed": microseconds between two of them, or before a plain answer;
//   "stream": true; "include_usage": true (of stream_options) for a chunk with the usage before [DONE].
// Each chunk holds '@' and the time of its making in microseconds of CLOCK_MONOTONIC, 16 digits, so that a client on the
// same machine can tell how long it was under way. GET /stats counts what was served; what a router asks at its start is answered.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, busy, stream, usage, left, sent; // left: chunks still to send; a plain answer that waits is busy without stream
    int place;                               // in the heap of timers; -1 outside of it
    uint64_t gap, due;
    char *in, *out;
    size_t in_size, in_space, out_size, out_space, out_sent;
} Conn;

static int poller, is_listener[65536];
static struct { unsigned long long requests, chunks, finished, aborted, open; } count;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

// Timers: a binary heap by due time.
static Conn **heap;
static int heap_size, heap_space;

static void put(Conn *c, int i) { heap[i] = c; c->place = i; }

static void sift(int i) {
    Conn *c = heap[i];
    for (; i && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) put(heap[(i - 1) / 2], i);
    for (int child; (child = 2 * i + 1) < heap_size; i = child) {
        if (child + 1 < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        put(heap[child], i);
    }
    put(c, i);
}

static void wake_at(Conn *c, uint64_t due) {
    c->due = due;
    if (c->place < 0) {
        if (heap_size == heap_space) heap = realloc(heap, (heap_space = heap_space * 2 + 64) * sizeof *heap);
        put(c, heap_size++);
    }
    sift(c->place);
}

static void forget(Conn *c) {
    int i = c->place;
    if (i < 0) return;
    c->place = -1;
    Conn *last = heap[--heap_size];
    if (last != c) { put(last, i); sift(i); }
}

static void hang_up(Conn *c) {
    if (c->busy) { count.aborted++; count.open--; }
    forget(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void listen_for(Conn *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void append(char **to, size_t *size, size_t *space, const char *data, size_t n) {
    if (*size + n > *space) *to = realloc(*to, *space = (*size + n) * 2);
    memcpy(*to + *size, data, n);
    *size += n;
}

// Send at once; what the kernel does not take is sent when it does. 0 when the other side is gone (and c with it).
static int say(Conn *c, const char *data, size_t n) {
    if (!c->out_size) {
        ssize_t w = send(c->fd, data, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN) { hang_up(c); return 0; }
        if (w < 0) w = 0;
        if ((size_t)w == n) return 1;
        data += w;
        n -= w;
        listen_for(c, EPOLLIN | EPOLLOUT);
    }
    append(&c->out, &c->out_size, &c->out_space, data, n);
    return 1;
}

static int say_more(Conn *c) {
    ssize_t w = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN) { hang_up(c); return 0; }
    if (w > 0) c->out_sent += w;
    if (c->out_sent == c->out_size) { c->out_sent = c->out_size = 0; listen_for(c, EPOLLIN); }
    return 1;
}

static int reply(Conn *c, const char *body) {
    char text[2048];
    size_t length = strlen(body);
    int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", length, body);
    return say(c, text, n);
}

static int say_event(Conn *c, const char *choices, const char *more) {
    char event[1024], chunk[1100];
    int n = snprintf(event, sizeof event,
                     "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[%s]%s}\n\n",
                     choices, more);
    return say(c, chunk, snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", n, event));
}

static int answer_plainly(Conn *c) {
    c->busy = 0;
    count.open--;
    count.finished++;
    return reply(c, "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,"
                    "\"message\":{\"role\":\"assistant\",\"content\":\"Hello there, how may I assist you today?\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                    "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":9,\"total_tokens\":20}}");
}

// The next chunk, or the end of the stream.
static int stream_on(Conn *c) {
    char text[256];
    if (c->left) {
        c->left--;
        count.chunks++;
        snprintf(text, sizeof text, "{\"index\":0,\"delta\":{%s\"content\":\"@%016llu \"},\"logprobs\":null,\"finish_reason\":null}",
                 c->sent++ ? "" : "\"role\":\"assistant\",", (unsigned long long)now_us());
        if (!say_event(c, text, "")) return 0;
        wake_at(c, c->gap ? c->due + c->gap : now_us());
        return 1;
    }
    forget(c);
    if (!say_event(c, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", "")) return 0;
    snprintf(text, sizeof text, ",\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":%d,\"total_tokens\":%d}", c->sent, c->sent + 11);
    if (c->usage && !say_event(c, "", text)) return 0;
    c->busy = 0;
    count.open--;
    count.finished++;
    return say(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
}

static long field(const char *body, size_t n, const char *name, long otherwise) {
    const char *p = memmem(body, n, name, strlen(name));
    if (!p) return otherwise;
    for (p += strlen(name); p < body + n && (*p == ':' || *p == ' '); p++) {}
    return p >= body + n || *p == 'n' ? otherwise : *p == 't' ? 1 : atol(p);
}

static int serve(Conn *c, const char *head, const char *body, size_t n) {
    char text[512];
    if (!strncmp(head, "GET /stats", 10)) {
        snprintf(text, sizeof text, "{\"requests\":%llu,\"chunks\":%llu,\"finished\":%llu,\"aborted\":%llu,\"open\":%llu}", count.requests, count.chunks,
                 count.finished, count.aborted, count.open);
        return reply(c, text);
    }
    if (strncmp(head, "POST /v1/", 9))
        return reply(c, strstr(head, "/v1/models") ? "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1,\"owned_by\":\"mock\"}]}"
                                                   : "{\"status\":\"ok\",\"model_path\":\"mock\",\"tokenizer_path\":\"mock\",\"served_model_name\":\"mock\",\"is_generation\":true}");
    count.requests++;
    count.open++;
    c->busy = 1;
    c->stream = field(body, n, "\"stream\"", 0);
    c->usage = field(body, n, "\"include_usage\"", 0);
    c->left = field(body, n, "\"max_tokens\"", field(body, n, "\"max_completion_tokens\"", 16));
    c->gap = field(body, n, "\"seed\"", 0);
    c->sent = 0;
    if (c->stream) {
        static const char start[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
        c->due = now_us();
        return say(c, start, sizeof start - 1) && stream_on(c);
    }
    if (!c->gap) return answer_plainly(c);
    wake_at(c, now_us() + c->gap);
    return 1;
}

// Serve the request in the buffer when it is whole; gateways send the next one only after the answer.
static int look(Conn *c) {
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (c->busy || !end) return 1;
    size_t head = end + 4 - c->in, whole = c->in_size;
    *end = 0;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    int chunked = strcasestr(c->in, "\r\ntransfer-encoding:") != NULL;
    if (length) whole = head + strtoul(length + 17, NULL, 10);
    else if (!chunked) whole = head;
    int complete = chunked && !length ? whole > head && !memcmp(c->in + whole - 5, "0\r\n\r\n", 5) : c->in_size >= whole;
    if (!complete) { *end = '\r'; return 1; }
    c->in_size = 0;
    return serve(c, c->in, c->in + head, whole - head);
}

static void hear(Conn *c) {
    static char data[1 << 18];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { hang_up(c); return; }
    append(&c->in, &c->in_size, &c->in_space, data, n);
    look(c);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    poller = epoll_create1(0);
    for (int i = 1; i < argc; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[i])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096)) { perror(argv[i]); return 1; }
        is_listener[fd] = 1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &is_listener[fd]};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
    for (;;) {
        struct epoll_event events[512];
        struct timespec wait = {0, 0};
        uint64_t now = now_us();
        if (heap_size && heap[0]->due > now) {
            wait.tv_sec = (heap[0]->due - now) / 1000000;
            wait.tv_nsec = (heap[0]->due - now) % 1000000 * 1000;
        }
        int n = epoll_pwait2(poller, events, 512, heap_size ? &wait : NULL, NULL);
        for (int i = 0; i < n; i++) {
            int *listener = events[i].data.ptr;
            if (listener >= is_listener && listener < is_listener + 65536) { accept_all(listener - is_listener); continue; }
            Conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT && c->out_size && !say_more(c)) continue;
            if (events[i].events & ~EPOLLOUT) hear(c);
        }
        now = now_us();
        for (int most = heap_size; most && heap_size && heap[0]->due <= now; most--) {
            Conn *c = heap[0];
            if (c->stream) {
                if (!stream_on(c)) continue;
            } else {
                forget(c);
                if (!answer_plainly(c)) continue;
            }
            if (!c->busy) look(c);
        }
    }
}
