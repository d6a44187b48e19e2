/* What the plugins older_keeper, oldest_keeper, newer_keeper and incompatible_keeper do. tests.mk says of what version, size and release each is. */
#ifndef PLUGINS_KEEPERS_H
#define PLUGINS_KEEPERS_H

#define KEEPERS_LOADED 71
#define KEEPERS_REFRESHED 72

#endif
