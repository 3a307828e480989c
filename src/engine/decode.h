/* From latents to frames, chunk by chunk: in its turn on the device's stream (stage.c), and a second time, in
 * fp32, for a sample whose values overflowed the type of the run.
 *
 * DESIGN of the second time
 *   who       the publisher's thread, for it is the first to look at the numbers, on the device that decoded
 *             the sample, with a stream and memory of its own. The stage goes on meanwhile, and waits for it
 *             only as for a slow file (run.h).
 *   what      the programs of an fp32 run, with the run's chunks, from the latents, which are fp32 in any
 *             case: the frames are those of an fp32 decoder, bit for bit, wherever and whenever it runs.
 *   memory    not in the run's plan, for almost no sample needs it: compiled, allocated and loaded when the
 *             first one does. What is missing then costs that sample, not the run. It stays until the run
 *             closes: one overflow makes the next likely, and freeing waits for all that the device has in
 *             hand. */
#ifndef VD_ENGINE_DECODE_H
#define VD_ENGINE_DECODE_H

#include "engine/board.h"
#include "engine/run.h"

typedef struct vd_decoding {
    vd_stream *stream;
    const vd_board *board;    /* of the decoders */
    vd_exec *const *decoders; /* [2]: for a chunk and for the rest */
    const void *latents;      /* f32 [F,h,w,C] */
    vd_copy_kind kind;        /* from where they are: VD_ON_DEVICE, VD_TO_DEVICE */
} vd_decoding;

/* Enqueues what fills trip->frames and adds the number of values that are not finite to trip->nonfinite. */
vd_code vd_decode(const vd_run *run, const vd_decoding *d, vd_trip *trip, vd_error *err);

/* What one device holds for decoding again. */
typedef struct vd_redo vd_redo;
void vd_redo_close(vd_redo *r); /* NULL is fine */

/* Decodes the sample again, in fp32, and waits for it: after VD_OK its frames are whole, its result and the
 * log say what happened. An error says how many values were not finite and why fp32 did not help; a lost
 * device ends the run. */
vd_code vd_decode_again(vd_run *run, vd_stage *stage, vd_trip *trip, vd_error *err);

#endif
