#ifndef OTEL_TRAIN_RECORD_H
#define OTEL_TRAIN_RECORD_H

#include "core.h"

/* A session's clock: step/clock.py. */
typedef struct {
    PyObject_HEAD
    double newest, began, stamped, wait;
    int64_t last_time_ns, last_step;
} Clock;

/* The writing end of a ring: ring/writer.py. */
typedef struct {
    PyObject_HEAD
    int64_t written, step, numbered;
    char writing; /* whether Python is in the middle of writing several records */
    Numbers mapping; /* bytes; none after the ring was released */
    int64_t first, size, records, body;
} Ring;

#define KIND_RANK 1 /* Kind.RANK */
#define KIND_BOTH 3 /* Kind.BOTH */
#define RECORD_HEAD 4 /* words before a record's values: sequence, step, time stamp, kind and ordinal */

/* The present time by the steady clock, as time.perf_counter gives it. */
double steady_seconds(void);
/* StepClock.stamp. */
int64_t clock_stamp(Clock *clock, double now);
/* StepClock.end_interval: writes length, steps, wait. */
void clock_end_interval(Clock *clock, double now, int64_t step, double *out);

/* How many values a record has; -1 where the ring takes none. */
Py_ssize_t ring_values(const Ring *ring);
/* Append a record with those values; the caller has asked ring_values. */
void ring_append(Ring *ring, int64_t step, int64_t time_ns, uint64_t kind, const double *values);
/* RingWriter.mark. */
void ring_mark(Ring *ring, int64_t step, int64_t time_ns);
/* Have the processor fetch what the next record is written over. */
void ring_prefetch(const Ring *ring);

#endif
