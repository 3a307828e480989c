/* One hand-off of a sample's state between two devices, as stages do it (engine/link.h).
 *
 *     bench_handoff MODEL FRAMES LATENT_H LATENT_W [cpu|cuda]
 *
 * Prints JSON: bytes of a state; seconds, medians of RUNS, from rest to rest, of a copy, and of a copy
 * between a checksum on the sender and one on the receiver. On CUDA both devices are on the first GPU. */
#include "rig.h"

#include "base/thread.h"
#include "engine/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 101, WARM = 10 };

/* One end: a block, and the program that sums it. */
typedef struct end {
    vd_device *device;
    vd_stream *stream;
    vd_compiled *compiled;
    vd_exec *exec;
    void *arena, *block, *sum;
} end;

static size_t state_bytes(const char *folder, vd_video_shape shape) {
    vd_model *m;
    vd_state_layout layout;
    MUST(vd_model_open(folder, NULL, &m, err));
    vd_program *condition = rig_network(m, "condition", VD_F32, shape, false),
               *step = rig_network(m, "step", VD_F32, shape, false);
    MUST(vd_state_plan(condition, step, &layout, err));
    vd_program_free(condition);
    vd_program_free(step);
    vd_model_close(m);
    return layout.total;
}

static vd_program *checksum_program(size_t bytes) {
    vd_program *p = vd_program_new("checksum", VD_F32);
    if (!p)
        exit(VD_ERR_UNAVAILABLE);
    vd_value block =
                 vd_program_external(p, "block", VD_F32, vd_vector_shape((int64_t)(bytes / sizeof(float)))),
             sum = vd_program_external(p, "sum", VD_U64, vd_vector_shape(1));
    vd_program_checksum(p, (vd_checksum){block, sum});
    MUST(vd_program_finish(p, err));
    return p;
}

static void end_open(end *e, vd_device *d, vd_stream *stream, const vd_program *p) {
    const vd_device_table *table = d->table;
    *e = (end){.device = d, .stream = stream};
    MUST(table->compile(d, p, &e->compiled, err));
    MUST(table->load(d, e->compiled, err));
    MUST(table->allocate(d, vd_compiled_arena(e->compiled), &e->arena, err));
    MUST(table->allocate(d, rig_bytes(&p->values[0]), &e->block, err));
    MUST(table->allocate(d, rig_bytes(&p->values[1]), &e->sum, err));
    const vd_binding bindings[] = {{0, e->block}, {1, e->sum}};
    MUST(table->exec_open(d, e->compiled, e->arena, bindings, 2, &e->exec, err));
}

static void end_close(end *e) {
    e->device->table->exec_close(e->device, e->exec);
    e->device->table->release(e->device, e->arena);
    e->device->table->release(e->device, e->block);
    e->device->table->release(e->device, e->sum);
    e->device->table->compiled_close(e->device, e->compiled);
}

static void sum(end *e) {
    MUST(e->device->table->launch(e->stream, e->exec, NULL, err));
}

/* Seconds from the first call until the receiver is done. */
static double hand_over(rig *r, end ends[2], vd_event *sent, vd_event *taken, size_t bytes, bool sums) {
    end *from = &ends[0], *to = &ends[1];
    double begin = vd_now();
    if (sums)
        sum(from);
    MUST(from->device->table->copy_peer(from->stream, to->device, to->block, from->block, bytes, NULL, err));
    MUST(from->device->table->record(from->stream, sent, err));
    MUST(to->device->table->wait(to->stream, sent, err));
    if (sums)
        sum(to);
    MUST(to->device->table->record(to->stream, taken, err));
    rig_await(r, taken);
    return vd_event_seconds(taken) - begin;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(rig *r, end ends[2], size_t bytes, bool sums) {
    double seconds[RUNS];
    vd_event *sent, *taken;
    MUST(ends[0].device->table->event_open(ends[0].device, &sent, err));
    MUST(ends[1].device->table->event_open(ends[1].device, &taken, err));
    for (int i = 0; i < WARM; i++)
        hand_over(r, ends, sent, taken, bytes, sums);
    for (int i = 0; i < RUNS; i++)
        seconds[i] = hand_over(r, ends, sent, taken, bytes, sums);
    ends[0].device->table->event_close(sent);
    ends[1].device->table->event_close(taken);
    qsort(seconds, RUNS, sizeof *seconds, by_size);
    return seconds[RUNS / 2];
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: bench_handoff MODEL FRAMES LATENT_H LATENT_W [cpu|cuda]\n");
        return VD_ERR_USAGE;
    }
    size_t bytes = state_bytes(argv[1], (vd_video_shape){.frames = atoi(argv[2]),
                                                         .latent_h = atoi(argv[3]),
                                                         .latent_w = atoi(argv[4]),
                                                         .steps = 25});
    vd_program *p = checksum_program(bytes);
    vd_route_info way;
    rig r;
    end ends[2];
    rig_open(&r, argc > 5 && strcmp(argv[5], "cuda") == 0, 2);
    MUST(r.backend->table->connect(r.backend, r.devices[0], r.devices[1], VD_P2P_AUTO, &way, err));
    for (int i = 0; i < 2; i++)
        end_open(&ends[i], r.devices[i], r.streams[i], p);
    double copy = median_seconds(&r, ends, bytes, false), whole = median_seconds(&r, ends, bytes, true);
    printf("{\"bytes\": %zu, \"route\": \"%s\", \"copy_s\": %.3g, \"seconds\": %.3g}\n", bytes,
           vd_route_name(way.route), copy, whole);
    for (int i = 0; i < 2; i++)
        end_close(&ends[i]);
    rig_close(&r);
    vd_program_free(p);
    return VD_OK;
}
