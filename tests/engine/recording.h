/* A wrapper of any device that writes down what is enqueued, with the memory it reads and writes, and finds
 * what nothing orders. Several devices share one recording.
 *
 * DESIGN
 *   order     A stream runs in order; a record takes what its stream has seen so far, a wait adds that to
 *             another stream. Each stream carries a clock: how far it has seen every stream. One access is
 *             behind another when its clock has seen it. What the host knows, or how fast things ran, orders
 *             nothing.
 *   rules     Of two accesses to the same bytes of device memory, one of them a write, the later must be
 *             behind the earlier; every byte read must have been written; every access lies within one block,
 *             which is the device's own; nothing is allocated or opened once anything was enqueued; once a
 *             stream was drained its device gets no more work.
 *   missing   A wait can be forgotten: the devices wait all the same, for without it they would write to
 *             memory that is long freed, but the clocks do not know of it. */
#ifndef VD_TESTS_RECORDING_H
#define VD_TESTS_RECORDING_H

#include "base/text.h"
#include "device/device.h"

typedef struct recording recording;

recording *recording_new(void);
void recording_free(recording *r); /* after its devices */

/* Closes the inner device with itself. */
vd_code recording_device_open(recording *r, vd_device *inner, vd_device **out, vd_error *err);

/* The k-th wait (from 1) that device `device` will enqueue is forgotten. */
void recording_forget(recording *r, int device, int k);

/* What broke a rule, one line each; NULL: nothing. */
const char *recording_problems(const recording *r);
/* Whether the program called `program` was launched for exactly `samples` samples, `times` times for each. */
bool recording_launched(const recording *r, const char *program, int samples, int times);
/* How many waits device `device` (in the order of opening) enqueued, and whether the k-th (from 1) waited for
 * anything: an event that somebody had recorded. */
int recording_waits(const recording *r, int device);
bool recording_wait_matters(const recording *r, int device, int k);
int recording_accesses(const recording *r);

#endif
