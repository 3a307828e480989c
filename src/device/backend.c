#include "device/backend.h"

#include <string.h>

const char *vd_route_name(vd_route route) {
    static const char *const names[] = {
        [VD_ROUTE_LOCAL] = "local", [VD_ROUTE_PEER] = "peer", [VD_ROUTE_STAGED] = "staged"};
    return names[route];
}

vd_code vd_p2p_parse(const char *wish, vd_p2p *out, vd_error *err) {
    static const char *const names[] = {[VD_P2P_AUTO] = "auto", [VD_P2P_ON] = "on", [VD_P2P_OFF] = "off"};
    *out = VD_P2P_AUTO;
    while (wish && strcmp(names[*out], wish) != 0)
        if (++*out > VD_P2P_OFF)
            return vd_fail(err, VD_ERR_USAGE, "--p2p %s: must be auto, on or off", wish);
    return VD_OK;
}
