// Java: JNI, and Java's threads.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;

class Host {
    static native long load(String path);
    static native String use(int seed);
    static native String unload(long library);

    static final String path = System.getenv("ALCOVE_TEST_MODULE");

    static void check(boolean good, String what) {
        if (!good)
            throw new AssertionError(what);
    }

    static void good(String wrong) {
        check(wrong == null, wrong);
    }

    static boolean mapped() throws Exception {
        return Files.readString(Path.of("/proc/self/maps")).contains(path);
    }

    /** Two threads that use it, and end when they are told to. */
    static class Users {
        final CountDownLatch used = new CountDownLatch(2), unloaded = new CountDownLatch(1);
        final Thread[] threads = new Thread[2];
        final String[] wrong = {"never ran", "never ran"};

        void run(int i) {
            wrong[i] = use(i);
            used.countDown();
            try {
                unloaded.await();
            } catch (InterruptedException e) {
                wrong[i] = e.toString();
            }
        }

        void start() throws Exception {
            for (int i = 0; i < 2; i++) {
                int which = i;
                threads[i] = new Thread(() -> run(which));
                threads[i].setDaemon(true); // a failure ends the process
                threads[i].start();
            }
            used.await();
        }

        void end() throws Exception {
            unloaded.countDown();
            for (int i = 0; i < 2; i++) {
                threads[i].join();
                good(wrong[i]);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.load(arguments[0]);
        for (int cycle = 0; cycle < 10; cycle++) {
            long library = load(path);
            check(mapped(), "not mapped");
            Users users = new Users();
            users.start();
            good(use(3));
            good(unload(library));
            check(!mapped(), "still mapped");
            users.end();
        }
        System.out.println("10 cycles");

        // Once more, and it is there until the process ends.
        load(path);
        Users users = new Users();
        users.start();
        users.end();
    }
}
