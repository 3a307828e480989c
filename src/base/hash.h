/* FNV-1a, 64 bits, over 8-byte little-endian words (a short tail is zero-padded; the length is mixed in last).
 * Names results in reports and checks hand-offs; not a cryptographic hash. */
#ifndef VD_BASE_HASH_H
#define VD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t vd_hash64(const void *bytes, size_t count);

#endif
