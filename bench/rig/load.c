/* A lean load generator for HTTP/1.1 with keep-alive and for Redis' protocol, so that the measured side is
 * the limit and not the client.
 *
 * load unix:PATH|tcp:IP:PORT http|resp CONNECTIONS PIPELINE FILE
 * FILE holds requests, each after its length (u32, native). Connection i of n sends numbers i, i + n, i + 2n
 * and so on, again from the start: n requests are one client per connection. "count" uses each once, in order.
 * A line on stdin is one run: "closed SECONDS" (each connection sends as soon as it was answered),
 * "open SECONDS RATE" (requests are due at a constant rate; one that finds no free connection waits, and its
 * latency counts from when it was due, so a slow answer is not hidden by the requests it held up) or
 * "count NUMBER" (closed, so many requests). The answer is one JSON line. It ends when stdin closes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { IN_MAX = 262144, STEPS = 64, BUCKETS = 40 * STEPS, PIPELINE_MAX = 64, QUIET_S = 10 };

struct connection {
    int fd, waiting, used;
    unsigned next;
    long left_out;
    const char *out;
    char *gather;
    double due;
    char in[IN_MAX];
};

static char *requests, **request;
static unsigned *request_bytes, request_count, largest;
static struct connection *connections, **idle;
static int connection_count, pipeline, idle_count, http, poller, in_order;
static unsigned next_in_order;
static long histogram[BUCKETS], answered, refused;
static double slowest;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* Buckets of a histogram: STEPS per power of two of microseconds, so within 1.6 % of the value. */
static int bucket_of(double us) {
    int power = 0;
    while (us >= 2 * STEPS) us /= 2, power++;
    int bucket = power * STEPS + (int)us;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double value_of(int bucket) {
    int power = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;
    return (bucket - power * STEPS + 0.5) * (double)(1L << power);
}

static double percentile(double share) {
    long want = (long)(share * answered), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > want) return value_of(i) < slowest ? value_of(i) : slowest;
    return slowest;
}

static void load_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    requests = malloc(size);
    if (fread(requests, 1, size, file) != (size_t)size) die(path);
    fclose(file);
    for (long at = 0; at < size; at += 4 + *(unsigned *)(requests + at)) request_count++;
    request = malloc(request_count * sizeof *request);
    request_bytes = malloc(request_count * sizeof *request_bytes);
    unsigned number = 0;
    for (long at = 0; at < size; at += 4 + request_bytes[number++]) {
        memcpy(&request_bytes[number], requests + at, 4);
        request[number] = requests + at + 4;
        if (request_bytes[number] > largest) largest = request_bytes[number];
    }
}

static void connect_one(struct connection *c, const char *target) {
    if (!strncmp(target, "unix:", 5)) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, target + 5, sizeof name.sun_path - 1);
        c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&name, sizeof name)) die(target);
    } else {
        char host[64];
        int port, one = 1;
        if (sscanf(target, "tcp:%63[^:]:%d", host, &port) != 2) exit(2);
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_aton(host, &name.sin_addr);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&name, sizeof name)) die(target);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void flush_out(struct connection *c) {
    while (c->left_out) {
        long sent = send(c->fd, c->out, c->left_out, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
            epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
            return;
        }
        if (sent < 0) die("send");
        c->out += sent;
        c->left_out -= sent;
    }
}

static unsigned next_of(struct connection *c) {
    if (in_order) return next_in_order++ % request_count;
    unsigned number = c->next;
    c->next += connection_count;
    if (c->next >= request_count) c->next = (c - connections) % request_count;
    return number;
}

static void begin(struct connection *c, double due) {
    c->due = due;
    c->waiting = pipeline;
    c->out = c->gather;
    c->left_out = 0;
    for (int i = 0; i < pipeline; i++) {
        unsigned number = next_of(c);
        if (pipeline == 1) c->out = request[number];
        else memcpy(c->gather + c->left_out, request[number], request_bytes[number]);
        c->left_out += request_bytes[number];
    }
    flush_out(c);
}

/* Length of the first whole answer in the buffer, 0 when it is not whole; `good` tells whether it is well. */
static long answer_bytes(const char *in, long used, int *good) {
    if (!http) {
        const char *end = memchr(in, '\n', used);
        *good = in[0] == '+';
        return end ? end - in + 1 : 0;
    }
    const char *body = memmem(in, used, "\r\n\r\n", 4);
    if (!body) return 0;
    *good = !memcmp(in + 9, "200", 3);
    long length = 0;
    for (const char *line = in; line < body; line++) {
        line = memchr(line, '\n', body - line);
        if (!line) break;
        if (!strncasecmp(line + 1, "content-length:", 15)) length = atol(line + 16);
    }
    long whole = body + 4 - in + length;
    return whole <= used ? whole : 0;
}

static void take(struct connection *c) {
    long got = recv(c->fd, c->in + c->used, IN_MAX - c->used, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        fprintf(stderr, "load: a connection was closed by the other side\n");
        exit(1);
    }
    c->used += got;
    double now = now_s();
    long at = 0, bytes;
    int good;
    while (c->waiting && (bytes = answer_bytes(c->in + at, c->used - at, &good))) {
        double us = (now - c->due) * 1e6;
        histogram[bucket_of(us)]++;
        if (us > slowest) slowest = us;
        answered++;
        refused += !good;
        at += bytes;
        if (--c->waiting == 0) idle[idle_count++] = c;
    }
    memmove(c->in, c->in + at, c->used - at);
    c->used -= at;
}

static void wait_some(double seconds) {
    struct epoll_event events[256];
    if (seconds < 0) seconds = 0;
    struct timespec limit = {(long)seconds, (long)((seconds - (long)seconds) * 1e9)};
    int count = epoll_pwait2(poller, events, 256, &limit, NULL);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) {
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
            flush_out(c);
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(c);
    }
}

static void run(double seconds, double rate, long count) {
    memset(histogram, 0, sizeof histogram);
    answered = refused = 0;
    in_order = count > 0;
    next_in_order = 0;
    slowest = 0;
    double wall = now_s(), cpu = cpu_s(), end = wall + seconds, due = wall, now = wall;
    long begun = 0;
    while (count ? answered < count : now < end) {
        int waits = 0;
        while (idle_count && (!count || begun < count)) {
            if (rate > 0 && due > now) {
                waits = 1;
                break;
            }
            begin(idle[--idle_count], rate > 0 ? due : now_s());
            begun += pipeline;
            if (rate > 0) due += 1 / rate;
        }
        double until = waits && due < end ? due : end;
        wait_some(count ? 1.0 : until - now);
        now = now_s();
    }
    wall = now_s() - wall;
    long in_time = answered;
    double overdue = rate > 0 && due < end && !idle_count ? now - due : 0;
    for (double last = now_s(); idle_count < connection_count && now_s() < last + QUIET_S;) wait_some(0.1);
    if (idle_count < connection_count) {
        fprintf(stderr, "load: no answer for %d s\n", QUIET_S);
        exit(1);
    }
    printf("{\"requests\": %ld, \"refused\": %ld, \"wall_s\": %.6f, \"client_cpu_s\": %.6f, \"per_s\": %.1f, "
           "\"overdue_s\": %.4f, \"p50_us\": %.1f, \"p95_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"max_us\": %.1f}\n",
           in_time, refused, wall, cpu_s() - cpu, in_time / wall, overdue, percentile(0.5), percentile(0.95),
           percentile(0.99), percentile(0.999), slowest);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    http = !strcmp(argv[2], "http");
    connection_count = atoi(argv[3]);
    pipeline = atoi(argv[4]);
    if (connection_count < 1 || pipeline < 1 || pipeline > PIPELINE_MAX) return 2;
    load_requests(argv[5]);
    poller = epoll_create1(0);
    connections = calloc(connection_count, sizeof *connections);
    idle = malloc(connection_count * sizeof *idle);
    for (int i = 0; i < connection_count; i++) {
        connect_one(&connections[i], argv[1]);
        connections[i].gather = malloc((size_t)pipeline * largest);
        connections[i].next = i % request_count;
        idle[idle_count++] = &connections[i];
    }
    printf("{\"ready\": true}\n");
    fflush(stdout);
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        double seconds = 0, rate = 0;
        long count = 0;
        if (sscanf(line, "open %lf %lf", &seconds, &rate) == 2) run(seconds, rate, 0);
        else if (sscanf(line, "closed %lf", &seconds) == 1) run(seconds, 0, 0);
        else if (sscanf(line, "count %ld", &count) == 1) run(0, 0, count);
        else return 2;
    }
    return 0;
}
