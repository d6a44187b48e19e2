# The man pages, written for scdoc.

if HAVE_SCDOC
man_MANS = doc/alcove.3 doc/alcove-loader.3
endif
EXTRA_DIST += dev/picture doc/speed.svg doc/ARCHITECTURE.md doc/routing.md doc/unloading.md doc/alcove.3.scd doc/alcove-loader.3.scd
CLEANFILES += $(man_MANS)

SUFFIXES = .3.scd .3
.3.scd.3:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(SCDOC) <$< >$@
