/* What was built, from what, and how. */
#ifndef VD_APP_VERSION_H
#define VD_APP_VERSION_H

extern const char
    vd_build_commit[]; /* "0123456789ab", "-dirty" appended when the tree had changes; "unknown" */
extern const char vd_build_description[]; /* "Release, GNU 12.2.0" */

#endif
