/*
 * A supervised child in C with two threads: the main loop, and a poller with a lane and a deadline of its own.
 *
 *     cc -std=c99 child.c -o child $(pkg-config --cflags --libs multus) -pthread
 *
 * child            works until SIGTERM or SIGINT
 * child TURNS      works that many turns of 10 ms
 * child --bench    measures multus_beat()
 */
#define _POSIX_C_SOURCE 200809L

#include <multus.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TURN_MS = 10, BENCH_BEATS = 1000000, BENCH_ROUNDS = 7 };

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal)
{
    (void)signal;
    stop_requested = 1;
}

static void sleep_ms(long ms)
{
    struct timespec time = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&time, NULL);
}

struct poller {
    multus_lane_t *lane;
    unsigned long turns;
};

static void *poll_until_stopped(void *argument)
{
    struct poller *poller = argument;
    unsigned long turn;
    for (turn = 0; !stop_requested && (poller->turns == 0 || turn < poller->turns); turn++) {
        sleep_ms(TURN_MS); /* here: ask a device */
        multus_lane_beat(poller->lane);
    }
    multus_lane_close(poller->lane);
    return NULL;
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void bench(multus_t *multus)
{
    double best = 1e9;
    int round, beat;
    for (round = 0; round < BENCH_ROUNDS; round++) {
        double start = now_ns(), mean;
        for (beat = 0; beat < BENCH_BEATS; beat++)
            multus_beat(multus);
        mean = (now_ns() - start) / BENCH_BEATS;
        if (mean < best)
            best = mean;
    }
    printf("%s: %.1f ns per beat (best of %d rounds of %d)\n", multus_is_supervised(multus) ? "supervised" : "inert",
           best, BENCH_ROUNDS, BENCH_BEATS);
}

int main(int argc, char **argv)
{
    unsigned long turns = 0, turn;
    pthread_t thread;
    struct poller poller;
    struct sigaction action;
    multus_t *multus = multus_open();

    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench(multus);
        multus_close(multus);
        return 0;
    }
    if (argc > 1 && ((turns = strtoul(argv[1], NULL, 10)) == 0 || argc > 2)) {
        fprintf(stderr, "usage: child [TURNS | --bench]\n");
        return 2;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = request_stop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    poller.turns = turns;
    poller.lane = multus_lane_open(multus, "poller", 100 * 1000000);
    if (poller.lane == NULL) {
        fprintf(stderr, "child: %s\n", multus_error(multus));
        return 1;
    }
    errno = pthread_create(&thread, NULL, poll_until_stopped, &poller);
    if (errno != 0) {
        perror("child: pthread_create");
        return 1;
    }

    if (multus_is_supervised(multus))
        printf("supervised with a deadline of %" PRIu64 " us\n", multus_deadline_ns(multus) / 1000);
    else
        printf("not supervised\n");
    fflush(stdout);
    multus_ready(multus);
    for (turn = 0; !stop_requested && (turns == 0 || turn < turns); turn++) {
        sleep_ms(TURN_MS); /* here: one turn of the work */
        multus_beat(multus);
    }

    pthread_join(thread, NULL);
    multus_close(multus);
    return 0;
}
