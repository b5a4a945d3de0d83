#ifndef OTEL_TRAIN_METER_H
#define OTEL_TRAIN_METER_H

#include "core.h"

#define PICK_NAMES 3
#define ORDER_SIGNS 4
#define PICKS_FIXED (9 + ORDER_SIGNS) /* values of a drain beside three of each modality */

/* The attributes of a mixing meter's counts (native/records.py) and its arrays. */
typedef struct {
    PyObject_HEAD
    int64_t step;
    double total, draws, switches, unpaired;
    int64_t previous;
    uint64_t order;
    char ordered, by_batch, judged;
    double total_drained, weighed, restarts, active, earliest, expected, horizon;
    double kept_picks, kept; /* the last picks of an interval, and the factor by which they decay */
    Numbers last_step, modality;                        /* int64 [slots] */
    Numbers total_picked, surprise, miss_surprise;      /* float64 [slots] */
    Numbers tokens, counts, targets, new_counts, shares, early_targets; /* float64 [modalities] */
    PyObject *twin, *names[PICK_NAMES]; /* of the arguments of a pick */
} Picks;

/* PickCounts.end_step. */
void picks_end_step(Picks *picks, int64_t step);
/* Have the processor fetch what a drain touches. */
void picks_prefetch(const Picks *picks);
/* How many values a drain gives; 0 before the meter has arrays. */
Py_ssize_t picks_size(const Picks *picks);
/* End the interval with a step, and write its values in the order of Layout(MIXING). */
void picks_drain(Picks *picks, int64_t step, double *out);

#endif
