/* What bindgen reads. The allow-list in build.rs decides what comes out of it. */
#include <libnvpair.h>
#include <libzfs_core.h>
#include <libzfs.h>
#include "src/ffi/shim.h"
