/* A run in figures: the JSON of --report (design.md section 8: names are a contract) and the table at the
 * end. */
#ifndef VD_APP_REPORT_H
#define VD_APP_REPORT_H

#include "base/error.h"
#include "vdpp.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct vd_report_context {
    const vdpp_report *report;
    const vdpp_engine *engine;  /* to name the settings that were left to the model */
    const vdpp_sample *samples; /* [report->sample_count] */
    int argument_count;
    char *const *arguments; /* the whole command line */
} vd_report_context;

vd_code vd_report_save(const vd_report_context *c, const char *path, bool overwrite, vd_error *err);

void vd_summary_print(const vdpp_report *report, const vdpp_sample *samples, FILE *file);

#endif
