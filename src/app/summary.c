#include "app/report.h"

#include "base/text.h"

#include <inttypes.h>

static void print_devices(const vdpp_report *r, FILE *file) {
    fprintf(file, "\n%-10s %10s %8s %10s %10s\n", "device", "busy", "share", "planned", "peak");
    for (int i = 0; i < r->device_count; i++) {
        const vdpp_device_result *d = &r->devices[i];
        char planned[32], peak[32];
        fprintf(file, "%-10s %8.2f s %6.1f %% %10s %10s\n", d->name, d->busy_s, 100 * d->busy_share,
                vd_human_bytes(planned, sizeof planned, d->planned_bytes),
                vd_human_bytes(peak, sizeof peak, d->peak_bytes));
    }
}

static void print_samples(const vdpp_report *r, const vdpp_sample *samples, FILE *file) {
    fprintf(file, "\n%-8s %20s %10s %10s  %s\n", "sample", "seed", "admitted", "finished",
            "hash of the latents");
    for (int i = 0; i < r->sample_count; i++) {
        const vdpp_sample_result *s = &r->samples[i];
        fprintf(file, "%-8d %20" PRIu64 " ", i, samples[i].seed);
        if (s->code == 0)
            fprintf(file, "%8.2f s %8.2f s  %016" PRIx64 "%s\n", s->admitted_s, s->finished_s,
                    s->latents_hash, s->decoded_again ? "  decoded again in fp32" : "");
        else
            fprintf(file, "%s\n", s->error);
    }
}

/* Each figure under its own name (design.md section 4). */
static void print_timing(const vdpp_report *r, FILE *file) {
    fprintf(file, "\n%d of %d made, mode %s on %d device%s, %s\n\n", r->made, r->sample_count, r->mode,
            r->device_count, r->device_count == 1 ? "" : "s", r->dtype);
    fprintf(file, "wall clock         %8.2f s   of it %.2f s loading, %.2f s warming up\n", r->wall_s,
            r->load_s, r->warmup_s);
    fprintf(file, "first result       %8.2f s\n", r->first_sample_s);
    fprintf(file, "steady interval    %8.2f s   between results, fill and drain left out\n",
            r->steady_interval_s);
    fprintf(file, "latency p50 / p95  %8.2f s / %.2f s   from admission to the finished file\n",
            r->latency_p50_s, r->latency_p95_s);
    fprintf(file, "fill / drain       %8.2f s / %.2f s\n", r->fill_s, r->drain_s);
    fprintf(file, "bubble share       %8.1f %%   of all devices' time\n", 100 * r->bubble_share);
    if (r->simulated_wall_s > 0)
        fprintf(file, "simulated          %8.2f s   the same plan with the measured costs\n",
                r->simulated_wall_s);
}

void vd_summary_print(const vdpp_report *r, const vdpp_sample *samples, FILE *file) {
    if (r->reason[0])
        fprintf(file, "\nauto chose %s: %s\n", r->mode, r->reason);
    print_timing(r, file);
    print_devices(r, file);
    print_samples(r, samples, file);
    if (r->better_mode[0])
        fprintf(file, "\n--parallel %s would have taken %.2f s (simulated with the measured costs).\n",
                r->better_mode, r->better_wall_s);
    fputc('\n', file);
}
