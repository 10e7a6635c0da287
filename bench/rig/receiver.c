/* The peer of `bench ingest` and `bench burst`: takes datagrams by recvmmsg and only counts them, or answers
 * each by sendmmsg.
 *
 * receiver FD answer|count. It takes a number of datagrams per line of stdin and answers what that took; when
 * none came for a second after the first, the rest was lost. It verifies, records and remembers nothing. It
 * ends when stdin closes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { CALL_MAX = 1024, SLOT = 64, FRAME = 48, NOTHING_CAME = -1 };

static struct mmsghdr in[CALL_MAX], out[CALL_MAX];
static struct iovec in_iov[CALL_MAX], out_iov[CALL_MAX];
static struct sockaddr_in6 names[CALL_MAX];
static char data[CALL_MAX][SLOT];

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static double wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void prepare(void) {
    for (int i = 0; i < CALL_MAX; i++) {
        in_iov[i] = (struct iovec){data[i], SLOT};
        out_iov[i] = (struct iovec){data[i], FRAME};
        in[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_iov = &in_iov[i], .msg_iovlen = 1};
        out[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_iov = &out_iov[i], .msg_iovlen = 1};
    }
}

static int take(int fd) {
    for (int i = 0; i < CALL_MAX; i++) in[i].msg_hdr.msg_namelen = sizeof names[0];
    int count = recvmmsg(fd, in, CALL_MAX, MSG_DONTWAIT, NULL);
    if (count < 0 && errno == EAGAIN) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        return poll(&ready, 1, 1000) == 0 ? NOTHING_CAME : 0;
    }
    if (count < 0) {
        perror("recvmmsg");
        exit(1);
    }
    return count;
}

static void answer(int fd, int count) {
    for (int i = 0; i < count; i++) out[i].msg_hdr.msg_namelen = in[i].msg_hdr.msg_namelen;
    for (int at = 0; at < count;) {
        int done = sendmmsg(fd, out + at, count - at, MSG_DONTWAIT);
        at += done > 0 ? done : 1;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int fd = atoi(argv[1]), answers = !strcmp(argv[2], "answer");
    char line[256];
    prepare();
    while (fgets(line, sizeof line, stdin)) {
        char *digits = strpbrk(line, "0123456789");
        long want = digits ? atol(digits) : 0, have = 0;
        double wall = wall_s(), cpu = cpu_s(), last = wall;
        while (have < want) {
            int count = take(fd);
            if (count == NOTHING_CAME && have) break;
            if (count <= 0) continue;
            if (answers) answer(fd, count);
            have += count;
            last = wall_s();
        }
        printf("{\"wall_s\": %.6f, \"cpu_s\": %.6f, \"taken\": %ld}\n", last - wall, cpu_s() - cpu, have);
        fflush(stdout);
    }
    return 0;
}
