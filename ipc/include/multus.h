/*
 * multus.h - heartbeats, inputs and outputs for programs that multusd supervises. C99 and C++. Manual page: multus(3).
 *
 *     multus_t *multus = multus_open();
 *     set_up();
 *     multus_ready(multus);
 *     while (work())
 *         multus_beat(multus);
 *     multus_close(multus);
 *
 * Beat from the loop that does the work, at least twice within the deadline; a thread that only beats proves nothing.
 * In a process that nobody supervises all calls do nothing, so the program runs by hand as it is.
 *
 * Threads: a multus_t is used by one thread at a time, a multus_lane_t by one thread at a time. Different lanes need no
 * lock between them. A further thread that is to be supervised gets a lane, opened by the thread that has the multus_t.
 *
 * NULL in place of a multus_t or multus_lane_t is allowed everywhere and does nothing.
 *
 * Checkpoints: places in the work that the configuration names ([[supervision]]), with the order in which and the times
 * within which a thread passes them. Look each up once, before the loop, and pass it in the loop:
 *
 *     int begin = multus_checkpoint(multus, "begin"), end = multus_checkpoint(multus, "end");
 *     while (multus_pass(multus, begin), work())
 *         multus_pass(multus, end), multus_beat(multus);
 *
 * After fork() the new process must not call anything here: it would beat in the name of its parent. Programs that are
 * executed do not inherit the page.
 */
#ifndef MULTUS_H
#define MULTUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The release of this header; multus_version() tells that of the library. Names are added, never changed. */
#define MULTUS_VERSION_MAJOR 0
#define MULTUS_VERSION_MINOR 1
#define MULTUS_VERSION_PATCH 0
#define MULTUS_VERSION "0.1.0"

/* Lanes of a process: the one that multus_beat() writes, and fifteen that can be opened. */
#define MULTUS_LANES 16

/* Bytes of the name of a lane; a longer one is cut between two characters. */
#define MULTUS_LANE_NAME_BYTES 32

/* Environment variable with the descriptor of the heartbeat page. Read by multus_open(), set by multusd. */
#define MULTUS_ENV_FD "MULTUS_HEARTBEAT_FD"

/* Environment variables with the descriptors of the process image and of this process's request page. Read by
 * multus_io_open(), set by multusd. */
#define MULTUS_ENV_IO_IMAGE_FD "MULTUS_IO_IMAGE_FD"
#define MULTUS_ENV_IO_REQUEST_FD "MULTUS_IO_REQUEST_FD"

/* Environment variable with the name of the child, whose outputs may be asked for. Read by multus_io_open(), set by multusd. */
#define MULTUS_ENV_NAME "MULTUS_NAME"

/* The heartbeat of this process. */
typedef struct multus multus_t;

/* The heartbeat of one further thread. */
typedef struct multus_lane multus_lane_t;

/*
 * The heartbeat that multusd set up for this process. Never NULL. Without supervision it does nothing. A page that is
 * there but cannot be used is told on standard error and by multus_error(); multusd will find the process silent.
 * Call it once, early: it reads the environment, which other threads must not change meanwhile.
 */
multus_t *multus_open(void);

/* 1 if somebody watches these beats, else 0. */
int multus_is_supervised(const multus_t *multus);

/*
 * Why there is a page but no supervision, or why the last multus_lane_open() failed; NULL without an error. The text
 * is valid until the next multus_lane_open() or multus_close() of the same multus_t.
 */
const char *multus_error(const multus_t *multus);

/* The configured deadline in nanoseconds; 0 without one, and without supervision. */
uint64_t multus_deadline_ns(const multus_t *multus);

/* "My work loop has come round again." Wait-free: a clock reading and a few stores, no system call. */
void multus_beat(multus_t *multus);

/*
 * "Set-up is done": from now on the deadline counts, and outputs are released. Includes a beat. A process that never
 * calls it is ready with its first beat.
 */
void multus_ready(multus_t *multus);

/*
 * How the process is, in a line of at most 192 bytes of UTF-8, until something else is said: shown with its state. NULL says
 * nothing. May wait for another thread that is speaking.
 */
void multus_status(multus_t *multus, const char *text);

/*
 * Something that happened and belongs into the record of events, at most 192 bytes of UTF-8. Meant for what changes now and
 * then: multusd takes ten at once, then one every ten seconds. It listens twice a second; a process that ends sooner takes
 * its last notice with it.
 */
void multus_notice(multus_t *multus, const char *text);

/*
 * The checkpoint of this name that the configuration has for the main loop, a number from 0 on; -1 where it has none, and
 * without supervision.
 */
int multus_checkpoint(multus_t *multus, const char *name);

/*
 * "The thread is here": the order of its checkpoints is judged, and the time since another one. This is no beat. A number
 * that multus_checkpoint() did not return for this multus_t does nothing; so -1 needs no test. Wait-free, no system call.
 */
void multus_pass(multus_t *multus, int checkpoint);

/*
 * Puts one more thread under supervision, from now on. A fault of it is reported with the name (UTF-8; NULL: none).
 * deadline_ns 0: the deadline of the process. NULL when all lanes are taken; without supervision a lane that does
 * nothing. A lane stays usable after multus_close(), and its place is not given to another one.
 */
multus_lane_t *multus_lane_open(multus_t *multus, const char *name, uint64_t deadline_ns);

/* One beat of this thread. As multus_beat(). */
void multus_lane_beat(multus_lane_t *lane);

/* As multus_checkpoint(), for the checkpoints that the configuration has for the lane of this name. */
int multus_lane_checkpoint(multus_lane_t *lane, const char *name);

/* As multus_pass(), for a number that multus_lane_checkpoint() returned for this lane. */
void multus_lane_pass(multus_lane_t *lane, int checkpoint);

/* The thread ends in good order: it is no longer supervised, and no checkpoint is waited for. Frees the lane. */
void multus_lane_close(multus_lane_t *lane);

/*
 * Frees the multus_t. This does not end the supervision of the process: one that goes on without beating is found
 * silent. So close it when the process ends, or not at all.
 */
void multus_close(multus_t *multus);

/*
 * Inputs and outputs: the process image, which multus-io keeps. Look each line up once, before the loop.
 *
 *     multus_io_t *io = multus_io_open();
 *     int button = multus_io_line(io, "DI1"), lamp = multus_io_line(io, "DO1");
 *     uint64_t seen = 0;
 *     for (;;) {
 *         int is_good = multus_io_read(io, button, NULL) == 1;
 *         multus_io_set(io, lamp, is_good ? multus_io_value(io, button) : 0);
 *         seen = multus_io_wait(io, seen, 100000000);
 *     }
 *
 * A multus_io_t is used by one thread at a time. NULL in its place is allowed everywhere; it has no lines. After fork()
 * the new process must not set outputs.
 */
typedef struct multus_io multus_io_t;

/* What a line holds, as of one moment. */
typedef struct multus_reading {
    double value;        /* 0 or 1, or a number in the unit of the line; when it is not good: the last good one */
    uint64_t raw;        /* the level or number as the hardware has it */
    uint64_t changed_ns; /* when the value changed, CLOCK_MONOTONIC; 0: never */
    uint64_t good_ns;    /* when it was read or written without an error, CLOCK_MONOTONIC; 0: never */
    uint64_t changes;    /* how often the value changed */
    int is_good;         /* 1: the value is that of the plant now */
    int is_forced;       /* 1: the output is held: safe, by multusd, or by a person */
} multus_reading_t;

/*
 * The image that multusd gave to this process. Never NULL. Without one no line exists. One that is there but cannot be used
 * is told on standard error and by multus_io_error(). As multus_open() it reads the environment.
 */
multus_io_t *multus_io_open(void);

/* Why there is no image, or why the last multus_io_set() failed; NULL without an error. Valid until the next call that
 * may fail. */
const char *multus_io_error(const multus_io_t *io);

/* The line of this name, a number from 0 on; -1 when there is none. It stays the same when multus-io starts again. */
int multus_io_line(multus_io_t *io, const char *name);

/* The last known value, good or not; NaN when there is no such line. No system call. */
double multus_io_value(const multus_io_t *io, int line);

/* 1: the line is good; 0: it is not, or multus-io does not scan; -1: there is no such line. *reading (unless NULL) gets all that is
 * known, except for -1. */
int multus_io_read(const multus_io_t *io, int line, multus_reading_t *reading);

/* Asks for a value of an output: it is there with the next scan, unless the output is forced. 0, or -1 when the
 * value is out of range, then nothing was asked for, or when this process does not own the output, which multus-io refuses as
 * well, and tells. */
int multus_io_set(multus_io_t *io, int line, double value);

/* Raised after every change of any line; 0 without an image. */
uint64_t multus_io_changes(const multus_io_t *io);

/* Sleeps until something has changed since multus_io_changes() was `seen`, at most so long; returns what it is then. */
uint64_t multus_io_wait(const multus_io_t *io, uint64_t seen, uint64_t timeout_ns);

/* Frees the multus_io_t. What was asked for holds until the process ends. */
void multus_io_close(multus_io_t *io);

/* The release of the library, such as "0.1.0". */
const char *multus_version(void);

#ifdef __cplusplus
}
#endif

#endif
