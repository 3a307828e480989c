#include "engine/decode.h"

#include "base/layout.h"
#include "engine/stage.h"

#include <stdio.h>
#include <stdlib.h>

vd_code vd_decode(const vd_run *run, const vd_decoding *d, vd_trip *trip, vd_error *err) {
    const vd_run_shape *shape = &run->shape;
    const vd_device_table *table = d->stream->device->table;
    int frames = shape->video.frames, chunk = shape->decode_chunk;
    size_t latent_bytes = run->state.bytes[VD_FIELD_LATENTS] / (size_t)frames;
    size_t frame_bytes = 3 * (size_t)shape->width * (size_t)shape->height;
    const unsigned char *latents = d->latents;
    void *in = vd_board_find(d->board, "decoder_latents"), *out = vd_board_find(d->board, "decoder_frames"),
         *nonfinite = vd_board_find(d->board, "nonfinite");
    int32_t *count = &trip->nonfinite;
    VD_TRY(table->copy(d->stream, VD_TO_DEVICE, nonfinite, count, sizeof *count, &trip->fault, err));
    for (int first = 0; first < frames; first += chunk) {
        size_t at = (size_t)first, n = (size_t)(frames - first < chunk ? frames - first : chunk);
        VD_TRY(table->copy(d->stream, d->kind, in, latents + at * latent_bytes, n * latent_bytes,
                           &trip->fault, err));
        VD_TRY(table->launch(d->stream, d->decoders[n < (size_t)chunk], &trip->fault, err));
        VD_TRY(table->copy(d->stream, VD_TO_HOST, trip->frames + at * frame_bytes, out, n * frame_bytes,
                           &trip->fault, err));
    }
    return table->copy(d->stream, VD_TO_HOST, count, nonfinite, sizeof *count, &trip->fault, err);
}

/* ---- the second time ---- */

struct vd_redo {
    vd_device *device;
    vd_stream *stream;
    vd_board board;
    void *arena;
    vd_compiled *compiled[2];
    vd_exec *decoders[2];
};

/* Device calls of a redo. */
#define CALL(r, name, ...) ((r)->device->table->name(__VA_ARGS__))

void vd_redo_close(vd_redo *r) {
    if (!r)
        return;
    CALL(r, stream_close, r->stream);
    for (int i = 0; i < 2; i++) {
        CALL(r, exec_close, r->device, r->decoders[i]);
        CALL(r, compiled_close, r->device, r->compiled[i]);
    }
    vd_board_close(&r->board);
    CALL(r, release, r->device, r->arena);
    free(r);
}

static vd_code compile(vd_redo *r, vd_program *const programs[2], size_t *arena, vd_error *err) {
    for (int i = 0; i < 2 && programs[i]; i++) {
        VD_TRY(CALL(r, compile, r->device, programs[i], &r->compiled[i], err));
        VD_TRY(vd_board_add(&r->board, programs[i], err));
        size_t bytes = vd_compiled_arena(r->compiled[i]);
        *arena = bytes > *arena ? bytes : *arena;
    }
    return VD_OK;
}

/* Memory before weights, which stay with the device. */
static vd_code open_parts(vd_redo *r, vd_program *const programs[2], const char *name, vd_error *err) {
    size_t arena = 0;
    VD_TRY(compile(r, programs, &arena, err));
    VD_TRY(CALL(r, allocate, r->device, arena + VD_ALIGNMENT, &r->arena, err));
    VD_TRY(vd_board_open(&r->board, r->device, NULL, err));
    for (int i = 0; i < 2 && programs[i]; i++) {
        VD_TRY(CALL(r, load, r->device, r->compiled[i], err));
        VD_TRY(vd_board_exec(&r->board, r->compiled[i], r->arena, &r->decoders[i], err));
    }
    return CALL(r, stream_open, r->device, name, &r->stream, err);
}

static vd_code ensure_open(const vd_run *run, vd_stage *stage, vd_error *err) {
    char name[16];
    if (stage->redo)
        return VD_OK;
    vd_redo *r = calloc(1, sizeof *r);
    if (!r)
        return vd_fail_memory(err, "a second decoder", sizeof *r);
    r->device = stage->device;
    snprintf(name, sizeof name, "vd-redo%d", stage->index);
    vd_code code = open_parts(r, run->fp32_decoders, name, err);
    if (code == VD_OK)
        stage->redo = r;
    else
        vd_redo_close(r);
    return code;
}

static vd_code decode_and_drain(const vd_run *run, const vd_redo *r, vd_trip *trip, vd_error *err) {
    vd_decoding d = {.stream = r->stream,
                     .board = &r->board,
                     .decoders = r->decoders,
                     .latents = trip->latents,
                     .kind = VD_TO_DEVICE};
    trip->nonfinite = 0;
    VD_TRY(vd_decode(run, &d, trip, err));
    return CALL(r, stream_drain, r->stream, err);
}

/* What a device that failed has in hand must end before the sample's memory does: closing waits for it. */
static vd_code decode_and_wait(const vd_run *run, vd_stage *stage, vd_trip *trip, vd_error *err) {
    VD_TRY(ensure_open(run, stage, err));
    vd_code code = decode_and_drain(run, stage->redo, trip, err);
    if (code != VD_OK) {
        vd_redo_close(stage->redo);
        stage->redo = NULL;
    } else if (vd_fault_failed(&trip->fault)) {
        *err = trip->fault.error;
        code = err->code;
    }
    return code;
}

static vd_code explain(const vd_run *run, int32_t overflown, vd_error *err) {
    const char *advice =
        err->code == VD_ERR_UNAVAILABLE ? "; try a smaller --decode-chunk or --dtype fp32" : "";
    return vd_fail(err, err->code,
                   "%d decoded values are not finite in %s, and decoding again in fp32 failed: %s%s",
                   overflown, run->dtype_name, err->message, advice);
}

vd_code vd_decode_again(vd_run *run, vd_stage *stage, vd_trip *trip, vd_error *err) {
    int32_t overflown = trip->nonfinite;
    vd_code code = decode_and_wait(run, stage, trip, err);
    if (code == VD_ERR_TRY_AGAIN)
        vd_run_break(run, err);
    if (code != VD_OK)
        return explain(run, overflown, err);
    if (trip->nonfinite)
        return vd_fail(err, VD_ERR_INTERNAL, "%d decoded values are not finite in %s, %d in fp32", overflown,
                       run->dtype_name, trip->nonfinite);
    trip->result->decoded_again = 1;
    vd_log_line(run->log, VD_LOG_WARNING,
                "sample %d: %d decoded values are not finite in %s; decoded again in fp32",
                run->first_sample + trip->index, overflown, run->dtype_name);
    return VD_OK;
}
