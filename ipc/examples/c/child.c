/*
 * A supervised child in C with two threads: the main loop, and a poller with a lane and a deadline of its own.
 *
 *     cc -std=c99 child.c -o child $(pkg-config --cflags --libs multus) -pthread
 *
 * child            works until SIGTERM or SIGINT
 * child TURNS      works that many turns of 10 ms
 * child --bench    measures multus_beat() and multus_pass()
 *
 * Its checkpoints do nothing until the configuration names them, for example:
 *
 *     [[supervision]]
 *     checkpoints = ["begin", "end"]
 *     start = ["begin"]
 *     next = { begin = ["end"], end = ["begin"] }
 *     deadline = [{ from = "begin", to = "end", min = "5ms", max = "50ms" }]
 *
 *     [[supervision]]
 *     lane = "poller"
 *     checkpoints = ["ask", "answer"]
 *     deadline = [{ from = "ask", to = "answer", max = "50ms" }]
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

enum { TURN_MS = 10, BENCH_CALLS = 1000000, BENCH_ROUNDS = 7 };

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
    const int ask = multus_lane_checkpoint(poller->lane, "ask");
    const int answer = multus_lane_checkpoint(poller->lane, "answer");
    unsigned long turn;
    for (turn = 0; !stop_requested && (poller->turns == 0 || turn < poller->turns); turn++) {
        multus_lane_pass(poller->lane, ask);
        sleep_ms(TURN_MS); /* here: ask a device */
        multus_lane_pass(poller->lane, answer);
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
    const int begin = multus_checkpoint(multus, "begin"), end = multus_checkpoint(multus, "end");
    double beat = 1e9, pass = 1e9;
    int round, n;
    for (round = 0; round < BENCH_ROUNDS; round++) {
        double start = now_ns(), middle, mean;
        for (n = 0; n < BENCH_CALLS; n++)
            multus_beat(multus);
        middle = now_ns();
        for (n = 0; n < BENCH_CALLS; n += 2) {
            multus_pass(multus, begin);
            multus_pass(multus, end);
        }
        mean = (middle - start) / BENCH_CALLS;
        if (mean < beat)
            beat = mean;
        mean = (now_ns() - middle) / BENCH_CALLS;
        if (mean < pass)
            pass = mean;
    }
    printf("%s: %.1f ns per beat, %.1f ns per pass of a checkpoint%s (best of %d rounds of %d)\n",
           multus_is_supervised(multus) ? "supervised" : "inert", beat, pass, begin < 0 ? " that is not there" : "",
           BENCH_ROUNDS, BENCH_CALLS);
}

int main(int argc, char **argv)
{
    unsigned long turns = 0, turn;
    int begin, end;
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
    begin = multus_checkpoint(multus, "begin");
    end = multus_checkpoint(multus, "end");
    multus_ready(multus);
    for (turn = 0; !stop_requested && (turns == 0 || turn < turns); turn++) {
        multus_pass(multus, begin);
        sleep_ms(TURN_MS); /* here: one turn of the work */
        multus_pass(multus, end);
        multus_beat(multus);
    }

    pthread_join(thread, NULL);
    multus_close(multus);
    return 0;
}
