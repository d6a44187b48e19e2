# Ruby: fiddle, and Ruby's threads. Each runs on one of the system's, which Ruby keeps for its next threads: the
# same two see the allocator come and go.
require "fiddle"

PATH = ENV.fetch("ALCOVE_TEST_MODULE")
PREFIX = ENV.fetch("ALCOVE_TEST_PREFIX")
POINTER, SIZE, NOTHING = Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOID

def check(good, what)
  raise what unless good
end

def mapped?
  File.read("/proc/self/maps").include?(PATH)
end

Functions = Struct.new(:malloc, :realloc, :free)

def load
  library = Fiddle::Handle.new(PATH, Fiddle::RTLD_NOW)
  [library, Functions.new(
    Fiddle::Function.new(library[PREFIX + "malloc"], [SIZE], POINTER),
    Fiddle::Function.new(library[PREFIX + "realloc"], [POINTER, SIZE], POINTER),
    Fiddle::Function.new(library[PREFIX + "free"], [POINTER], NOTHING)
  )]
end

def use(functions, seed)
  blocks = (0...33).map do |i|
    content = [(seed + i) % 256].pack("C") * (i**4 + 1)
    block = functions.malloc.call(content.bytesize)
    block[0, content.bytesize] = content
    [functions.realloc.call(block, 2 * content.bytesize), content]
  end
  blocks.each do |block, content|
    check block[0, content.bytesize] == content, "a block has lost its contents"
    functions.free.call(block)
  end
end

# Threads that use it, and end when they are told to.
def start(functions)
  used = Queue.new
  unloaded = Queue.new
  threads = [1, 2].map do |seed|
    Thread.new do
      begin
        use(functions, seed)
      ensure
        used << true
      end
      unloaded.pop
    end
  end
  2.times { used.pop }
  [threads, unloaded]
end

def finish(threads, unloaded)
  2.times { unloaded << true }
  threads.each(&:join)
end

10.times do
  library, functions = load
  check mapped?, "not mapped"
  users = start(functions)
  use(functions, 3)
  library.close
  check !mapped?, "still mapped"
  finish(*users)
end
puts "10 cycles"

# Once more, and it is there until the process ends.
_, functions = load
finish(*start(functions))
