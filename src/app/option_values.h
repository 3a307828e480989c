/* Readers of option values, one per kind; see vd_option.read. All are strict: the whole text, in range. */
#ifndef VD_APP_OPTION_VALUES_H
#define VD_APP_OPTION_VALUES_H

#include "app/options.h"

vd_code vd_read_switch(const vd_option *o, const char *const *values, void *target,
                       vd_error *err); /* bool; "1", "0" */
vd_code vd_read_int(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_side(const vd_option *o, const char *const *values, void *target,
                     vd_error *err); /* multiple of 8 */
vd_code vd_read_double(const vd_option *o, const char *const *values, void *target, vd_error *err);
/* The same for fields of vdpp_job where 0 means the default and a negative number means 0. */
vd_code vd_read_int_or_zero(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_double_or_zero(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_text(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_choice(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_ints(const vd_option *o, const char *const *values, void *target,
                     vd_error *err); /* vd_int_list */
/* These know their fields. */
vd_code vd_read_seed(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_guidance(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_image(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_more_images(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_formats(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_latent_shape(const vd_option *o, const char *const *values, void *target, vd_error *err);
vd_code vd_read_costs(const vd_option *o, const char *const *values, void *target, vd_error *err);

#endif
