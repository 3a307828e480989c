#include "base/machine.h"
#include "engine/engine.h"
#include "engine/stage.h"

#include <math.h>
#include <stdio.h>

/* What one device takes beyond its arena and buffers. */
static size_t fixed_bytes(const vd_memory_plan *m) {
    return m->backend.device_weights + m->backend.context;
}

vd_code vd_memory_plan_of(const vdpp_engine *engine, const vd_run *run, vd_memory_plan *m, vd_error *err) {
    const vd_devices *devices = &engine->devices;
    const vd_backend *b = devices->backend;
    *m = (vd_memory_plan){.backend = b->table->memory(b),
                          .apart = b->own_memory,
                          .host = vd_run_host_bytes(run),
                          .process = vd_process_resident(),
                          .available = vd_machine_available(),
                          .ordinals = devices->ordinals};
    for (int d = 0; d < run->plan->devices; d++) {
        m->stages += run->stages[d]->planned_bytes;
        if (!m->apart)
            continue;
        vd_device_info info;
        VD_TRY(b->table->describe(b, devices->ordinals[d], &info, err));
        m->free[d] = info.free;
    }
    m->total = m->process + m->backend.shared_weights + m->host + m->backend.code + m->stages +
               (size_t)run->plan->devices * fixed_bytes(m);
    return VD_OK;
}

/* ---- what would fit ---- */

/* A size for which `bytes` now become at most `room`: activations shrink at least as fast as the number of
 * pixels. */
static void advise_size(size_t room, size_t bytes, const vd_run *run, const char *devices, char *advice,
                        size_t cap) {
    const vd_run_shape *s = &run->shape;
    double share = 0.95 * (double)room / (double)bytes;
    int width = (int)(s->width * sqrt(share)) / 64 * 64, height = (int)(s->height * sqrt(share)) / 64 * 64;
    if (width >= 64 && height >= 64)
        snprintf(advice, cap, "%s-W %d -H %d would fit", devices, width, height);
    else
        snprintf(advice, cap, "the model's weights leave no room for a video");
}

static size_t rest_of(size_t whole, size_t part) {
    return whole > part ? whole - part : 0;
}

/* Of the machine's memory, for all devices where they take it. */
static vd_code check_machine(const vd_memory_plan *m, const vd_run *run, vd_error *err) {
    size_t fixed = m->backend.shared_weights + m->host, stages = m->apart ? 0 : m->stages;
    size_t needed = fixed + m->backend.code + stages, one = stages / (size_t)run->plan->devices;
    if (m->available == 0 || needed <= m->available)
        return VD_OK;
    char need[32], have[32], advice[128];
    const vd_run_shape *s = &run->shape;
    if (m->apart)
        snprintf(advice, sizeof advice, "the model's weights and finished frames pass through it");
    else if (one && rest_of(m->available, fixed) >= one)
        snprintf(advice, sizeof advice, "--gpus %d would fit", (int)(rest_of(m->available, fixed) / one));
    else
        advise_size(rest_of(m->available, m->backend.shared_weights),
                    one + m->host / (size_t)run->plan->devices, run, "--gpus 1 ", advice, sizeof advice);
    return vd_fail(
        err, VD_ERR_UNAVAILABLE,
        "%d x %d pixels, %d frames on %d devices need %s of memory and %s are free: %s (see --dry-run)",
        s->width, s->height, s->video.frames, run->plan->devices, vd_human_bytes(need, sizeof need, needed),
        vd_human_bytes(have, sizeof have, m->available), advice);
}

/* Of device `d`'s memory, for all stages on it. */
static vd_code check_device(const vd_memory_plan *m, const vd_run *run, int d, vd_error *err) {
    size_t fixed = 0, stages = 0;
    int sharing = 0;
    for (int i = 0; i < run->plan->devices; i++)
        if (m->ordinals[i] == m->ordinals[d]) {
            fixed += fixed_bytes(m);
            stages += run->stages[i]->planned_bytes;
            sharing++;
        }
    if (m->free[d] == 0 || fixed + stages <= m->free[d])
        return VD_OK;
    char need[32], have[32], advice[128];
    const vd_run_shape *s = &run->shape;
    if (sharing > 1 && fixed_bytes(m) + run->stages[d]->planned_bytes <= m->free[d])
        snprintf(advice, sizeof advice, "fewer than %d stages on it would fit", sharing);
    else
        advise_size(rest_of(m->free[d], fixed), stages, run, "", advice, sizeof advice);
    return vd_fail(
        err, VD_ERR_UNAVAILABLE,
        "%d x %d pixels, %d frames need %s of memory on %s and %s are free there: %s (see --dry-run)",
        s->width, s->height, s->video.frames, vd_human_bytes(need, sizeof need, fixed + stages),
        run->devices[d]->name, vd_human_bytes(have, sizeof have, m->free[d]), advice);
}

vd_code vd_memory_check(const vd_memory_plan *m, const vd_run *run, vd_error *err) {
    for (int d = 0; m->apart && d < run->plan->devices; d++)
        VD_TRY(check_device(m, run, d, err));
    return check_machine(m, run, err);
}

/* ---- for people ---- */

static void print_row(vd_text *text, const char *name, size_t bytes, const char *what) {
    char human[32];
    if (bytes == 0)
        return;
    vd_text_add(text, "  %-8s %10s   %s\n", name, vd_human_bytes(human, sizeof human, bytes), what);
}

static void print_device(const vd_memory_plan *m, const vd_run *run, int d, vd_text *text) {
    const vd_stage *s = run->stages[d];
    char a[32], b[32], c[32];
    vd_text_add(text, "  %-8s %10s   activations and workspace %s, buffers %s", run->devices[d]->name,
                vd_human_bytes(a, sizeof a, s->planned_bytes + (m->apart ? fixed_bytes(m) : 0)),
                vd_human_bytes(b, sizeof b, s->arena_bytes),
                vd_human_bytes(c, sizeof c, s->planned_bytes - s->arena_bytes));
    if (m->apart)
        vd_text_add(text, ", weights %s, context %s; %s free",
                    vd_human_bytes(a, sizeof a, m->backend.device_weights),
                    vd_human_bytes(b, sizeof b, m->backend.context), vd_human_bytes(c, sizeof c, m->free[d]));
    vd_text_add(text, "\n");
}

void vd_memory_print(const vd_memory_plan *m, const vd_run *run, vd_text *text) {
    char human[32], limit[96] = "";
    if (m->available)
        snprintf(limit, sizeof limit, m->apart ? "on the host and all devices; the host has %s" : "of %s",
                 vd_human_bytes(human, sizeof human, m->available + m->process));
    vd_text_add(text, "memory\n");
    for (int d = 0; d < run->plan->devices; d++)
        print_device(m, run, d, text);
    print_row(text, "weights", m->backend.shared_weights,
              m->apart ? "on the host, to send them from" : "one copy for all devices");
    print_row(text, "host", m->host, "staging and finished frames");
    print_row(text, "kernels", m->backend.code, "generated when loading");
    print_row(text, "process", m->process, "program and libraries");
    print_row(text, "total", m->total, limit);
}
