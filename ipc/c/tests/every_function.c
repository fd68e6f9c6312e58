/* Calls every function of multus.h, by a pointer of the type that is expected. Valid C99 and C++11. */
#include <multus.h>
#include <multus.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static multus_t *(*const open_)(void) = multus_open;
static int (*const is_supervised)(const multus_t *) = multus_is_supervised;
static const char *(*const error_)(const multus_t *) = multus_error;
static uint64_t (*const deadline_ns)(const multus_t *) = multus_deadline_ns;
static void (*const beat)(multus_t *) = multus_beat;
static void (*const ready)(multus_t *) = multus_ready;
static void (*const status)(multus_t *, const char *) = multus_status;
static void (*const notice)(multus_t *, const char *) = multus_notice;
static int (*const checkpoint)(multus_t *, const char *) = multus_checkpoint;
static void (*const pass)(multus_t *, int) = multus_pass;
static multus_lane_t *(*const lane_open)(multus_t *, const char *, uint64_t) = multus_lane_open;
static void (*const lane_beat)(multus_lane_t *) = multus_lane_beat;
static int (*const lane_checkpoint)(multus_lane_t *, const char *) = multus_lane_checkpoint;
static void (*const lane_pass)(multus_lane_t *, int) = multus_lane_pass;
static void (*const lane_close)(multus_lane_t *) = multus_lane_close;
static void (*const close_)(multus_t *) = multus_close;
static multus_io_t *(*const io_open)(void) = multus_io_open;
static const char *(*const io_error)(const multus_io_t *) = multus_io_error;
static int (*const io_line)(multus_io_t *, const char *) = multus_io_line;
static double (*const io_value)(const multus_io_t *, int) = multus_io_value;
static int (*const io_read)(const multus_io_t *, int, multus_reading_t *) = multus_io_read;
static int (*const io_set)(multus_io_t *, int, double) = multus_io_set;
static uint64_t (*const io_changes)(const multus_io_t *) = multus_io_changes;
static uint64_t (*const io_wait)(const multus_io_t *, uint64_t, uint64_t) = multus_io_wait;
static void (*const io_close)(multus_io_t *) = multus_io_close;
static const char *(*const version)(void) = multus_version;

static int failures;

static void check_at(int line, int holds, const char *condition)
{
    if (!holds) {
        printf("line %d: %s\n", line, condition);
        failures++;
    }
}
#define CHECK(condition) check_at(__LINE__, (condition) != 0, #condition)

static void null_does_nothing(void)
{
    CHECK(is_supervised(NULL) == 0);
    CHECK(error_(NULL) == NULL);
    CHECK(deadline_ns(NULL) == 0);
    beat(NULL);
    ready(NULL);
    status(NULL, "well");
    notice(NULL, "nobody hears it");
    CHECK(lane_open(NULL, "x", 0) == NULL);
    lane_beat(NULL);
    CHECK(checkpoint(NULL, "begin") == -1);
    CHECK(lane_checkpoint(NULL, "ask") == -1);
    pass(NULL, 0);
    lane_pass(NULL, 0);
    lane_close(NULL);
    close_(NULL);
}

static void no_lines(multus_io_t *io)
{
    CHECK(io_line(io, "DI1") == -1 && io_line(io, NULL) == -1);
    CHECK(io_value(io, 0) != io_value(io, 0)); /* NaN */
    CHECK(io_read(io, 0, NULL) == -1 && io_read(io, -1, NULL) == -1);
    CHECK(io_set(io, 0, 1) == -1);
    CHECK(io_changes(io) == 0 && io_wait(io, 0, 1) == 0);
    io_close(io);
}

/* An image with the input DI1, which is 1, the output DO1 of this process, and one of another. */
static void lines(multus_io_t *io)
{
    multus_reading_t reading;
    const int input = io_line(io, "DI1"), own = io_line(io, "DO1"), foreign = io_line(io, "AO1");
    const uint64_t seen = io_changes(io);
    CHECK(io_error(io) == NULL);
    CHECK(input >= 0 && own >= 0 && foreign >= 0 && io_line(io, "DI1") == input && io_line(io, "DI2") == -1);
    CHECK(io_value(io, input) == 1 && io_value(io, own) == 0);
    CHECK(io_read(io, input, &reading) == 1 && io_read(io, input, NULL) == 1);
    CHECK(reading.value == 1 && reading.raw == 7 && reading.changed_ns == 3 && reading.good_ns == 4);
    CHECK(reading.changes == 5 && reading.is_good == 1 && reading.is_forced == 0);
    CHECK(io_read(io, own, &reading) == 0 && reading.is_good == 0 && reading.is_forced == 1);
    CHECK(io_set(io, own, 1) == 0 && io_error(io) == NULL);
    CHECK(io_set(io, own, 0.5) == -1 && strstr(io_error(io), "out of range") != NULL);
    CHECK(io_set(io, foreign, 1) == -1 && strstr(io_error(io), "not owned") != NULL);
    CHECK(io_set(io, input, 1) == -1 && strstr(io_error(io), "no output") != NULL);
    CHECK(io_set(io, 99, 1) == -1 && io_set(io, INT_MIN, 1) == -1);
    CHECK(seen > 0 && io_wait(io, seen - 1, UINT64_MAX) == seen && io_wait(io, seen, 1000000) == seen);
    io_close(io);
}

/* Two milliseconds of work. */
static void work(void)
{
    const clock_t start = clock();
    while (clock() - start < CLOCKS_PER_SEC / 500)
        continue;
}

/* One end too early, one out of order, one answer too late; nothing else may be found. */
static void pass_checkpoints(multus_t *multus, multus_lane_t *poller)
{
    const int begin = checkpoint(multus, "begin"), end = checkpoint(multus, "end");
    const int ask = lane_checkpoint(poller, "ask"), answer = lane_checkpoint(poller, "answer");
    CHECK(begin >= 0 && end >= 0 && ask >= 0 && answer >= 0 && begin != end && ask != answer);
    CHECK(checkpoint(multus, "begin") == begin);
    CHECK(checkpoint(multus, "ask") == -1 && lane_checkpoint(poller, "begin") == -1);
    CHECK(checkpoint(multus, NULL) == -1 && checkpoint(multus, "") == -1 && checkpoint(multus, "\xff") == -1);
    pass(multus, begin);
    pass(multus, end);
    pass(multus, end);
    pass(multus, ask);
    pass(multus, -1);
    pass(multus, 15);
    pass(multus, 16);
    pass(multus, INT_MAX);
    pass(multus, INT_MIN);
    lane_pass(poller, ask);
    work();
    lane_pass(poller, answer);
    lane_pass(poller, begin);
    lane_pass(poller, ask);
}

/* A page with a deadline of 50 ms; the test looks into it afterwards. */
static void supervised(multus_t *multus)
{
    multus_lane_t *lanes[MULTUS_LANES];
    int lane;
    CHECK(is_supervised(multus) == 1);
    CHECK(error_(multus) == NULL);
    CHECK(deadline_ns(multus) == 50000000);
    lanes[1] = lane_open(multus, "poller", 5000000);
    lanes[2] = lane_open(multus, NULL, 0);
    lanes[3] = lane_open(multus, "\xff", 0);
    for (lane = 4; lane < MULTUS_LANES; lane++)
        lanes[lane] = lane_open(multus, "more", 0);
    for (lane = 1; lane < MULTUS_LANES; lane++)
        CHECK(lanes[lane] != NULL);
    CHECK(lane_open(multus, "one too many", 0) == NULL);
    CHECK(error_(multus) != NULL && strstr(error_(multus), "16 lanes") != NULL);
    ready(multus);
    beat(multus);
    beat(multus);
    lane_beat(lanes[1]);
    status(multus, "well");
    notice(multus, "first");
    notice(multus, "second");
    notice(multus, NULL);
    pass_checkpoints(multus, lanes[1]);
    lane_close(lanes[1]);
    close_(multus);
    lane_beat(lanes[2]);
    for (lane = 3; lane < MULTUS_LANES; lane++)
        lane_close(lanes[lane]);
}

static void not_supervised(multus_t *multus)
{
    multus_lane_t *lane = lane_open(multus, "x", 1);
    CHECK(is_supervised(multus) == 0);
    CHECK(deadline_ns(multus) == 0);
    CHECK(lane != NULL);
    CHECK(checkpoint(multus, "begin") == -1);
    CHECK(lane_checkpoint(lane, "ask") == -1);
    pass(multus, 0);
    lane_pass(lane, 0);
    status(multus, "well");
    notice(multus, "nobody hears it");
    ready(multus);
    beat(multus);
    lane_beat(lane);
    lane_close(lane);
    close_(multus);
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    multus_t *multus = open_();
    CHECK(multus != NULL);
    CHECK(strcmp(version(), MULTUS_VERSION) == 0);
    null_does_nothing();
    no_lines(NULL);
    if (strcmp(kind, "lines") == 0) {
        lines(io_open());
        close_(multus);
        return failures != 0;
    }
    no_lines(io_open());
    if (strcmp(kind, "supervised") == 0) {
        supervised(multus);
    } else if (strcmp(kind, "inert") == 0) {
        CHECK(error_(multus) == NULL);
        not_supervised(multus);
    } else if (strcmp(kind, "refused") == 0) {
        CHECK(error_(multus) != NULL);
        printf("%s\n", error_(multus) == NULL ? "" : error_(multus));
        not_supervised(multus);
    } else {
        printf("which kind?\n");
        return 2;
    }
    return failures != 0;
}
