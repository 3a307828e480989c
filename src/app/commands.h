/* One function per command; each returns the exit code. */
#ifndef VD_APP_COMMANDS_H
#define VD_APP_COMMANDS_H

#include "app/options.h"

/* Makes videos. `arguments` is the whole command line, for the report. */
vd_code vd_generate_command(const vd_options *options, int argument_count, char *const *arguments,
                            vd_error *err);

/* Tries the ways to compute what such a run needs, and keeps the fastest in the cache folder. */
vd_code vd_tune_command(const vd_options *options, FILE *out, vd_error *err);

/* Prints the plan of a run. */
vd_code vd_plan_command(const vd_options *options, FILE *out, vd_error *err);

/* Prints what devices there are and how states get from one to another. */
vd_code vd_devices_command(const vd_options *options, FILE *out, vd_error *err);

/* Prints what a run needs and whether it is there, a line each. Fails when something is not and has to be. */
vd_code vd_doctor_command(const vd_options *options, FILE *out, vd_error *err);

#endif
