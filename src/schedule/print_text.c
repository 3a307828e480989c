#include "schedule/print.h"

#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MIN_COLUMNS = 80,
    MAX_COLUMNS = 240,
    LABEL = 11,
    SHARE = 7
}; /* "device 12  " before and "   62 %" after */

static const char symbols[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

typedef struct drawing {
    const vd_plan *plan;
    const vd_timeline *t;
    double begin, scale; /* time of the first cell; cells per unit of time */
    int cells;
} drawing;

static drawing make_drawing(const vd_plan *plan, const vd_timeline *t, int columns) {
    int clamped = columns < MIN_COLUMNS ? MIN_COLUMNS : columns > MAX_COLUMNS ? MAX_COLUMNS : columns;
    drawing d = {.plan = plan, .t = t, .begin = t->start[0], .cells = clamped - LABEL - SHARE};
    for (int i = 1; i < plan->task_count; i++)
        d.begin = fmin(d.begin, t->start[i]);
    d.scale = t->makespan > 0 ? d.cells / t->makespan : 0;
    return d;
}

static int cell(const drawing *d, double time) {
    int at = (int)lround((time - d->begin) * d->scale);
    return at < 0 ? 0 : at > d->cells ? d->cells : at;
}

static void paint(const drawing *d, int task, char *row) {
    vd_task_kind kind = d->plan->tasks[task].kind;
    int from = cell(d, d->t->start[task]), to = cell(d, d->t->end[task]);
    bool shown = kind != VD_TASK_STEPS && d->t->end[task] > d->t->start[task];
    if (shown && from == to) /* however short, an encode and a decode are seen */
        from < d->cells ? to++ : from--;
    char symbol = kind == VD_TASK_ENCODE   ? '('
                  : kind == VD_TASK_DECODE ? ')'
                                           : symbols[d->plan->tasks[task].sample % (int)(sizeof symbols - 1)];
    memset(row + from, symbol, (size_t)(to - from));
}

/* Steps first, so that the short tasks beside them stay visible. */
static void draw_device(const drawing *d, int device, vd_text *out) {
    char row[MAX_COLUMNS];
    const vd_plan *plan = d->plan;
    memset(row, '.', (size_t)d->cells);
    for (int steps = 1; steps >= 0; steps--)
        for (int i = plan->order_start[device]; i < plan->order_start[device + 1]; i++)
            if ((plan->tasks[plan->order[i]].kind == VD_TASK_STEPS) == steps)
                paint(d, plan->order[i], row);
    vd_text_add(out, "device %-4d%.*s", device, d->cells, row);
    double share = d->t->makespan > 0 ? d->t->busy[device] / d->t->makespan : 0;
    vd_text_add(out, "%5.0f %%\n", 100 * share);
}

/* Five times, the outer ones flush with the row's ends. */
static void draw_axis(const drawing *d, vd_text *out) {
    char row[MAX_COLUMNS + 16], label[16];
    memset(row, ' ', sizeof row);
    for (int quarter = 0; quarter <= 4; quarter++) {
        int length = snprintf(label, sizeof label, "%.4g", d->t->makespan * quarter / 4);
        int at = quarter < 4 ? d->cells * quarter / 4 : d->cells - length;
        memcpy(row + at, label, (size_t)length);
    }
    vd_text_add(out, "%*s%.*s   busy\n", LABEL, "", d->cells, row);
}

static void add_figures(const vd_plan *plan, const vd_timeline *t, vd_text *out) {
    vd_text_add(out, "%s: %d samples of %d steps on %d devices, %d hand-offs\n", vd_mode_name(plan->mode),
                plan->samples, plan->steps, plan->devices, plan->handoff_count);
    if (plan->reason[0])
        vd_text_add(out, "chosen because %s\n", plan->reason);
    vd_text_add(out, "makespan %.4g   first result %.4g   steady interval %.4g   latency p50 %.4g p95 %.4g\n",
                t->makespan, t->first_result, t->steady_interval, t->latency_p50, t->latency_p95);
    vd_text_add(out, "fill %.4g   drain %.4g   bubble share %.1f %%\n\n", t->fill, t->drain,
                100 * t->bubble_share);
}

char *vd_plan_text(const vd_plan *plan, const vd_timeline *t, int columns) {
    drawing d = make_drawing(plan, t, columns);
    vd_text out = {0};
    add_figures(plan, t, &out);
    draw_axis(&d, &out);
    for (int device = 0; device < plan->devices; device++)
        draw_device(&d, device, &out);
    vd_text_add(&out, "\n0-9 a-z A-Z: steps of that sample%s   .: idle%s\n",
                plan->decode ? "   (: encode   ): decode" : "",
                plan->samples > (int)sizeof symbols - 1 ? "   symbols repeat after 62 samples" : "");
    if (out.failed)
        vd_text_free(&out);
    return out.text;
}
