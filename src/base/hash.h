/* A 64-bit sum that names results in reports and checks hand-offs; not a cryptographic hash. Each 4-byte
 * little-endian word w at index i contributes mix(i * 2^32 + w), mix being the finaliser of splitmix64; the
 * contributions are added modulo 2^64, so any number of threads may add them in any order and get the same
 * bits. A tail of 1 to 3 bytes is padded with zeros; the byte count is mixed in as one more contribution at
 * index 2^32 - 1. */
#ifndef VD_BASE_HASH_H
#define VD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t vd_hash64(const void *bytes, size_t count);

#endif
