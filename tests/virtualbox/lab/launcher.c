/* For tests only: starts VBoxHeadless without its kernel driver.
 *
 * The distribution's VBoxHeadless is a set-uid stub that insists on /dev/vboxdrv before it loads VBoxHeadless.so.
 * What is behind it does not: told early that there is no driver ("driverless"), the same code runs the guest in
 * VirtualBox's own instruction interpreter, a thousand times slower and with no privilege at all. Everything else in
 * the lab is the distribution's. Never put this in the place of a real user's VBoxHeadless.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*init_exe_fn)(int argc, char ***argv, uint32_t flags);
typedef int (*trusted_main_fn)(int argc, char **argv, char **envp);

enum {
	/* RTR3INIT_FLAGS_TRY_SUPLIB, iprt/initterm.h; SUPR3INIT_F_*, VBox/sup.h, begin at bit 18 of the same word */
	TRY_SUPLIB = 1u << 17,
	DRIVERLESS = 1u << (18 + 1),
	DRIVERLESS_INTERPRETER = 1u << (18 + 2)
};

static void *load(const char *file)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		fprintf(stderr, "launcher: %s\n", dlerror());
		exit(111);
	}
	return library;
}

static void *find(void *library, const char *name)
{
	void *symbol = dlsym(library, name);
	if (!symbol) {
		fprintf(stderr, "launcher: %s\n", dlerror());
		exit(111);
	}
	return symbol;
}

int main(int argc, char **argv, char **envp)
{
	init_exe_fn init = (init_exe_fn)find(load("/usr/lib/virtualbox/VBoxRT.so"), "RTR3InitExe");
	int status = init(argc, &argv, TRY_SUPLIB | DRIVERLESS | DRIVERLESS_INTERPRETER);
	if (status < 0) {
		fprintf(stderr, "launcher: RTR3InitExe: %d\n", status);
		return 112;
	}
	return ((trusted_main_fn)find(load("/usr/lib/virtualbox/VBoxHeadless.so"), "TrustedMain"))(argc, argv, envp);
}
