# Perl: DynaLoader, and Perl's threads, each an interpreter of its own.
use strict;
use warnings;
use threads;
use threads::shared;
use DynaLoader;

my $path = $ENV{ALCOVE_TEST_MODULE};
my $prefix = $ENV{ALCOVE_TEST_PREFIX};

my $host = DynaLoader::dl_load_file($ARGV[0], 0) or die DynaLoader::dl_error();
DynaLoader::dl_install_xsub('host::use', DynaLoader::dl_find_symbol($host, 'host_use'));

sub mapped {
    open my $maps, '<', '/proc/self/maps' or die $!;
    return scalar grep { index($_, $path) >= 0 } <$maps>;
}

sub load {
    my $library = DynaLoader::dl_load_file($path, 0) or die DynaLoader::dl_error();
    return $library, map { DynaLoader::dl_find_symbol($library, $prefix . $_) } qw(malloc realloc free);
}

my $used : shared;
my $unloaded : shared;

# Two threads that use it, and end when they are told to.
sub start {
    my @functions = @_;
    $used = $unloaded = 0;
    my @users = map {
        my $seed = $_;
        threads->create(sub {
            my $good = eval { host::use(@functions, $seed); 1 };
            { lock $used; $used++; cond_signal $used; }
            { lock $unloaded; cond_wait $unloaded until $unloaded; }
            return $good;
        });
    } 1, 2;
    { lock $used; cond_wait $used until $used == 2; }
    return @users;
}

sub end {
    { lock $unloaded; $unloaded = 1; cond_broadcast $unloaded; }
    $_->join() or die 'a thread could not use it' for @_;
}

for (1 .. 10) {
    my ($library, @functions) = load();
    mapped() or die 'not mapped';
    my @users = start(@functions);
    host::use(@functions, 3);
    DynaLoader::dl_unload_file($library) or die DynaLoader::dl_error();
    mapped() and die 'still mapped';
    end(@users);
}
print "10 cycles\n";

# Once more, and it is there until the process ends.
my (undef, @functions) = load();
end(start(@functions));
