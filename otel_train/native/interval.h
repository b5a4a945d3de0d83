#ifndef OTEL_TRAIN_INTERVAL_H
#define OTEL_TRAIN_INTERVAL_H

#include "core.h"

#define RECENT 8

/* What a rank measures in an interval: step/recorder.py and step/scalar_recorder.py. */
typedef struct {
    PyObject_HEAD
    double dropped;
    char late, on_device;
    PyObject *means, *totals;   /* offset of each mean and of each sum, by key */
    Numbers sums, peaks, empty; /* float64: the scalars', and what the sums begin with */
    Numbers order;              /* int64 [values]: index in flat of each value of a record */
    Numbers flat, row;          /* float64: all that is measured, source by source; a record's values */
    struct {
        PyObject *key;
        int64_t offset;
        bool is_mean;
    } recent[RECENT]; /* the keys of the step before, mostly those of this one */
} Interval;

/* How many values the sources give. */
Py_ssize_t source_values(const Interval *interval);
/* Add a step's scalars, all of them or none; false where Python is to read them. */
bool add_scalars(Interval *interval, PyObject *scalars);
/* Recorder.complete, after the sources' values and the interval's three: leaves a record's values in row. */
void complete_row(Interval *interval);
/* Have the processor fetch what these touch. */
void interval_prefetch(const Interval *interval);

#endif
