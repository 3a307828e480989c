/* The thread that turns finished samples into files: checks the hand-offs and the numbers, decodes those
 * again whose values overflowed, writes every format asked for, a JSON file beside them and the dump, and
 * fills the sample's result. Nothing appears under its final name unless it is complete. */
#ifndef VD_ENGINE_PUBLISHER_H
#define VD_ENGINE_PUBLISHER_H

#include "base/thread.h"
#include "engine/run.h"

typedef struct vd_publisher {
    vd_run *run;
    vd_thread thread;
} vd_publisher;

vd_code vd_publisher_start(vd_publisher *p, vd_run *run, vd_error *err);
void vd_publisher_join(vd_publisher *p);

/* Frees what a trip holds beside its result. */
void vd_trip_release(const vd_run *run, vd_trip *trip);

#endif
