/* A call that may not fail in a test: must(vd_thing_open(path, &thing, err)). Failing prints call and
 * message. */
#ifndef VD_TESTS_MUST_H
#define VD_TESTS_MUST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

#define must(call)                                                                                           \
    do {                                                                                                     \
        vd_error must_error_ = {0};                                                                          \
        vd_error *err = &must_error_;                                                                        \
        if ((call) != VD_OK)                                                                                 \
            fail_msg("%s: %s", #call, err->message);                                                         \
    } while (0)

#endif
