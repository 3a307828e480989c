/* Between the files' and the reference's channel-first order and the devices' channel-last one. */
#ifndef VD_ENGINE_TRANSPOSE_H
#define VD_ENGINE_TRANSPOSE_H

#include <stdint.h>

/* out [n, pixels, c] from in [n, c, pixels]. */
void vd_to_channels_last(const float *in, int64_t n, int64_t c, int64_t pixels, float *out);
/* out [n, c, pixels] from in [n, pixels, c]. */
void vd_to_channels_first(const float *in, int64_t n, int64_t c, int64_t pixels, float *out);

#endif
