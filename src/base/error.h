/* Errors are values. Every fallible function returns a vd_code and takes, last, a `vd_error *` that it fills
 * on failure (never NULL). The codes are the exit codes of the command line (design.md section 8), so main
 * needs no translation.
 *
 *     vd_code vd_thing_open(const char *path, vd_thing **out, vd_error *err) {
 *         if (!exists(path))
 *             return vd_fail(err, VD_ERR_NO_INPUT, "no model folder '%s'; give one with --model", path);
 *         VD_TRY(vd_other(path, err));
 *         ...
 *         return VD_OK;
 *     }
 */
#ifndef VD_BASE_ERROR_H
#define VD_BASE_ERROR_H

typedef enum vd_code {
    VD_OK = 0,
    VD_ERR_SOME_FAILED = 1,    /* some samples failed, the others are made */
    VD_ERR_USAGE = 64,         /* the command line or a job asks for something impossible */
    VD_ERR_DATA = 65,          /* a model, image, or job file is malformed */
    VD_ERR_NO_INPUT = 66,      /* an input or model is missing or unreadable */
    VD_ERR_UNAVAILABLE = 69,   /* no such device, or too little memory on it */
    VD_ERR_INTERNAL = 70,      /* a check of our own failed; a library call that cannot fail failed */
    VD_ERR_CANNOT_CREATE = 73, /* an output cannot be created */
    VD_ERR_IO = 74,            /* reading or writing failed half way */
    VD_ERR_TRY_AGAIN = 75,     /* interrupted or a device was lost; work is left */
    VD_ERR_INTERRUPTED = 130,  /* the second interrupt */
} vd_code;

enum { VD_ERROR_CAP = 768 };

typedef struct vd_error {
    vd_code code;
    char message[VD_ERROR_CAP]; /* one line, no trailing newline; names the thing, the value and what to do */
} vd_error;

/* Fills `err` (message cut at VD_ERROR_CAP, control characters escaped) and returns `code`. */
vd_code vd_fail(vd_error *err, vd_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts `context` and ": " before the message already in `err`; returns err->code. */
vd_code vd_fail_in(vd_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory on the host, naming what was to be allocated. */
vd_code vd_fail_memory(vd_error *err, const char *what, unsigned long long bytes);

/* Returns from the caller when `call` fails. */
#define VD_TRY(call)                                                                                         \
    do {                                                                                                     \
        vd_code vd_try_code_ = (call);                                                                       \
        if (vd_try_code_ != VD_OK)                                                                           \
            return vd_try_code_;                                                                             \
    } while (0)

/* The same for functions that clean up: stores the code in `status` and jumps. */
#define VD_TRY_GOTO(status, label, call)                                                                     \
    do {                                                                                                     \
        (status) = (call);                                                                                   \
        if ((status) != VD_OK)                                                                               \
            goto label;                                                                                      \
    } while (0)

#endif
