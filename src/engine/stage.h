/* One host thread per device: runs the device's tasks of the plan in order (design.md section 5; run.h
 * DESIGN). */
#ifndef VD_ENGINE_STAGE_H
#define VD_ENGINE_STAGE_H

#include "base/thread.h"
#include "engine/admit.h"
#include "engine/board.h"
#include "engine/decode.h"
#include "engine/link.h"
#include "engine/run.h"

enum {
    VD_STAGE_DEPTH = 2,    /* tasks enqueued ahead of the device */
    VD_STAGE_OUTBOXES = 2, /* so that the next sample's steps overlap the copy of the last one */
    VD_STAGE_SLOTS = 64,   /* checksum programs: at most devices * VD_LINK_SLOTS + outboxes */
};

/* A state block on its way out, waiting for the copy stream. */
typedef struct vd_outbox {
    unsigned char *block;
    vd_event *filled; /* compute stream: the block is written */
    vd_event *sent;   /* copy stream: the block may be overwritten */
} vd_outbox;

/* What this device is doing, for progress; packed so that one load reads it. */
typedef struct vd_activity {
    _Atomic int sample; /* -1: idle */
    _Atomic int kind;   /* vd_task_kind */
    _Atomic int step;   /* finished steps of the sample */
    _Atomic int last;
} vd_activity;

struct vd_stage {
    vd_run *run;
    int index; /* of the device */
    vd_device *device;
    vd_thread thread;
    vd_stream *compute, *copy;
    vd_board board;
    void *arena;
    size_t arena_bytes;
    bool uses[VD_ROLE_COUNT];
    bool loaded[VD_ROLE_COUNT];
    vd_exec *execs[VD_ROLE_COUNT];
    vd_outbox outboxes[VD_STAGE_OUTBOXES];
    int sent_count; /* hand-offs sent so far */
    vd_exec *outbox_sums[VD_STAGE_OUTBOXES];
    vd_exec **slot_sums; /* [devices * VD_LINK_SLOTS], by sender and slot */
    uint64_t *sum;       /* device memory: result of the last checksum */
    vd_staging staging[VD_STAGE_DEPTH];
    bool admits; /* some sample's first task is here */
    int admitted_count;
    vd_image_cache cache;
    vd_ring done; /* vd_trip *: pushed by the compute stream, popped by the publisher */
    int enqueued;
    _Atomic uint32_t finished;  /* tasks; parked on by the stage */
    int completed;              /* samples whose last task was enqueued here */
    _Atomic uint32_t published; /* of them; parked on by the stage */
    vd_redo *redo;              /* the publisher's, while the run lasts; NULL until a sample needs it */
    vd_activity activity;
    size_t planned_bytes;
};

/* Which parts of the networks device `index` needs, and the bytes that it will allocate. Needs
 * run->compiled. */
vd_code vd_stage_plan(vd_run *run, int index, vd_stage **out, vd_error *err);
/* Allocates everything on `device`. */
vd_code vd_stage_open(vd_stage *s, vd_device *device, vd_error *err);
/* Once run->links is complete: opens what checks the slots of the links to this stage. */
vd_code vd_stage_connect(vd_stage *s, vd_error *err);
vd_code vd_stage_start(vd_stage *s, vd_error *err);
void vd_stage_join(vd_stage *s);
void vd_stage_close(vd_stage *s); /* after joining; NULL is fine */

#endif
