/* pyconfig.h of a big-endian 64-bit Linux: as here, but for the order of bytes. */
#include "pyconfig_here.h"
#define WORDS_BIGENDIAN 1
#define DOUBLE_IS_BIG_ENDIAN_IEEE754 1
#undef DOUBLE_IS_LITTLE_ENDIAN_IEEE754
