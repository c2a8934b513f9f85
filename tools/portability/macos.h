/* pyconfig.h of macOS: as here (both are 64-bit Unix), without what only Linux has. */
#include "pyconfig_here.h"
#undef HAVE_LINUX_RANDOM_H
#undef HAVE_SYS_EPOLL_H
#undef HAVE_EPOLL
#undef HAVE_GETRANDOM
#undef HAVE_GETRANDOM_SYSCALL
#undef HAVE_CRYPT_H
#undef HAVE_CRYPT_R
#undef HAVE_ENDIAN_H
#undef _GNU_SOURCE
#define _DARWIN_C_SOURCE 1
