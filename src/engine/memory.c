#include "base/machine.h"
#include "engine/engine.h"
#include "engine/stage.h"

#include <math.h>
#include <stdio.h>

vd_memory_plan vd_memory_plan_of(const vdpp_engine *engine, const vd_run *run) {
    vd_backend_memory shared = engine->backend->table->memory(engine->backend);
    vd_memory_plan m = {.weights = shared.shared_weights,
                        .host = vd_run_host_bytes(run),
                        .code = shared.code,
                        .process = vd_process_resident(),
                        .available = vd_machine_available()};
    for (int d = 0; d < run->plan->devices; d++)
        m.devices += run->stages[d]->planned_bytes;
    m.total = m.weights + m.devices + m.host + m.code + m.process;
    return m;
}

/* A size that fits one device: activations shrink at least as fast as the number of pixels. */
static void advise_size(const vd_memory_plan *m, const vd_run *run, char *advice, size_t cap) {
    const vd_run_shape *s = &run->shape;
    size_t one = (m->devices + m->host) / (size_t)run->plan->devices;
    double share = m->available > m->weights ? 0.95 * (double)(m->available - m->weights) / (double)one : 0;
    int width = (int)(s->width * sqrt(share)) / 64 * 64, height = (int)(s->height * sqrt(share)) / 64 * 64;
    if (width >= 64 && height >= 64)
        snprintf(advice, cap, "--gpus 1 -W %d -H %d would fit", width, height);
    else
        snprintf(advice, cap, "the model's weights leave no room for a video on this machine");
}

vd_code vd_memory_check(const vd_memory_plan *m, const vd_run *run, vd_error *err) {
    size_t needed = m->total - m->process;
    if (m->available == 0 || needed <= m->available)
        return VD_OK;
    char need[32], have[32], advice[128];
    const vd_run_shape *s = &run->shape;
    size_t one = m->devices / (size_t)run->plan->devices, fixed = m->weights + m->host;
    int fitting = m->available > fixed && one ? (int)((m->available - fixed) / one) : 0;
    if (fitting >= 1)
        snprintf(advice, sizeof advice, "--gpus %d would fit", fitting);
    else
        advise_size(m, run, advice, sizeof advice);
    return vd_fail(
        err, VD_ERR_UNAVAILABLE,
        "%d x %d pixels, %d frames on %d devices need %s of memory and %s are free: %s (see --dry-run)",
        s->width, s->height, s->video.frames, run->plan->devices, vd_human_bytes(need, sizeof need, needed),
        vd_human_bytes(have, sizeof have, m->available), advice);
}

void vd_memory_print(const vd_memory_plan *m, const vd_run *run, vd_text *text) {
    char a[32], b[32], c[32];
    vd_text_add(text, "memory\n");
    for (int d = 0; d < run->plan->devices; d++) {
        const vd_stage *s = run->stages[d];
        vd_text_add(text, "  %-8s %10s   activations and workspace %s, buffers %s\n", run->devices[d]->name,
                    vd_human_bytes(a, sizeof a, s->planned_bytes),
                    vd_human_bytes(b, sizeof b, s->arena_bytes),
                    vd_human_bytes(c, sizeof c, s->planned_bytes - s->arena_bytes));
    }
    vd_text_add(text, "  %-8s %10s   one copy for all devices\n", "weights",
                vd_human_bytes(a, sizeof a, m->weights));
    vd_text_add(text, "  %-8s %10s   staging and finished frames\n", "host",
                vd_human_bytes(a, sizeof a, m->host));
    vd_text_add(text, "  %-8s %10s   generated when loading\n", "kernels",
                vd_human_bytes(a, sizeof a, m->code));
    vd_text_add(text, "  %-8s %10s   program and libraries\n", "process",
                vd_human_bytes(a, sizeof a, m->process));
    vd_text_add(text, "  %-8s %10s", "total", vd_human_bytes(a, sizeof a, m->total));
    if (m->available)
        vd_text_add(text, "   of %s", vd_human_bytes(b, sizeof b, m->available + m->process));
    vd_text_add(text, "\n");
}
