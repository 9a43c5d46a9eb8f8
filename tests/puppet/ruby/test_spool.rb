# frozen_string_literal: true

require_relative 'helper'
require 'timeout'
require 'puppet_x/catalog_queue/counters'
require 'puppet_x/catalog_queue/spool'

# Memory first, disk beyond; bounded; shared with other runtimes.
class TestSpool < Minitest::Test
  include Helper

  def setup
    @directory = File.join(Dir.mktmpdir, 'spool')
    @log = Log.new
    @counters = Q::Counters.new
    @clock = Clock.new
    @time = Time.at(1_700_000_000)
  end

  def teardown
    FileUtils.rm_rf(File.dirname(@directory))
  end

  def disk(bytes_max = 1_000_000)
    # Each name one microsecond later, so that the order is told by the names.
    Q::Disk.new(@directory, bytes_max, clock: @clock, time: -> { @time += Rational(1, 1_000_000) })
  end

  def spool(memory: 1_000_000, on: disk)
    Q::Spool.new(memory, on, @counters, @log)
  end

  def names(messages)
    messages.map(&:certname)
  end

  def test_memory_is_used_first_and_the_disk_stays_empty
    found = spool
    3.times { |n| found.push(catalog_of("n#{n}")) }
    refute File.exist?(@directory)
    assert_equal %w[n0 n1 n2], names(found.take(10, 1000))
  end

  def test_what_memory_cannot_hold_goes_to_disk_whole
    found = spool(memory: 4)
    found.push(catalog_of('a', 'aaaa'))
    found.push(catalog_of('b', "bytes\n\0\xFF"))
    taken = found.take(10, 1000)
    assert_equal %w[b a], names(taken) # on disk is older than in memory, as far as a spool can tell
    assert_equal "bytes\n\0\xFF".b, taken.first.body
    assert_equal 'catalog of b', taken.first.what
  end

  def test_the_oldest_leaves_first_also_after_a_spill
    found = spool
    5.times { |n| found.push(catalog_of("n#{n}")) }
    found.spill
    found.push(catalog_of('n5'))
    assert_equal %w[n0 n1 n2], names(found.take(3, 1000))
    assert_equal %w[n3 n4 n5], names(found.take(3, 1000))
  end

  def test_undelivered_messages_go_back_in_their_order
    found = spool
    4.times { |n| found.push(catalog_of("n#{n}")) }
    found.spill
    found.push(catalog_of('n4'))
    found.give_back(found.take(10, 1000))
    assert_equal %w[n0 n1 n2 n3 n4], names(found.take(10, 1000))
  end

  def test_a_delivered_message_leaves_no_file
    found = spool(memory: 0)
    found.push(catalog_of('a'))
    found.take(10, 1000).each { |message| found.done(message) }
    assert_empty Dir.children(@directory)
    assert_equal 1, @counters[:delivered]
  end

  def test_a_batch_is_bounded_in_bytes_but_never_empty
    found = spool
    3.times { |n| found.push(catalog_of("n#{n}", 'x' * 100)) }
    assert_equal 1, found.take(10, 50).length
    assert_equal 2, found.take(10, 150).length
  end

  def test_a_full_disk_spool_loses_the_oldest_and_says_whose_it_was
    found = spool(memory: 0, on: disk(700))
    4.times { |n| found.push(catalog_of("n#{n}", 'x' * 200)) }
    assert_equal 2, @counters[:lost]
    assert_equal 2, @log.texts(:err).length
    assert_includes @log.texts(:err).first, 'catalog of n0'
    assert_equal %w[n2 n3], names(found.take(10, 10_000))
  end

  def test_a_message_larger_than_the_spool_is_lost_alone
    found = spool(memory: 0, on: disk(700))
    found.push(catalog_of('small', 'x'))
    found.push(catalog_of('huge', 'x' * 1000))
    assert_equal %w[small], names(found.take(10, 10_000))
    assert_includes @log.texts(:err).first, 'catalog of huge'
  end

  def test_a_spool_that_cannot_be_written_keeps_memory_and_says_so_once
    File.write(@directory, 'a file where the directory should be')
    found = spool
    2.times { |n| found.push(catalog_of("n#{n}")) }
    2.times { found.spill }
    assert_equal 1, @log.texts(:warning).length
    assert_equal %w[n0 n1], names(found.take(10, 1000))
  end

  def test_beyond_memory_an_unwritable_spool_loses_with_a_word
    File.write(@directory, 'a file where the directory should be')
    spool(memory: 0).push(catalog_of('n0'))
    assert_includes @log.texts(:err).first, 'catalog of n0'
    assert_equal 1, @counters[:lost]
  end

  # A disk that others have filled: what had to go is gone, whether its successor finds room or not.
  def test_what_had_to_go_is_told_when_the_new_one_cannot_be_written_either
    full = disk(700)
    found = spool(memory: 0, on: full)
    2.times { |n| found.push(catalog_of("n#{n}", 'x' * 200)) }
    full.define_singleton_method(:write) { |*| raise Errno::ENOSPC }
    found.push(catalog_of('n2', 'x' * 200))
    assert_equal %w[n0 n2], @log.texts(:err).map { |text| text[/catalog of (\w+)/, 1] }
    assert_equal 2, @counters[:lost]
    assert_equal 1, Dir.glob(File.join(@directory, '*.msg')).length
  end

  # What stands under a message's name and is none: (what it is, what is told of it)
  NO_MESSAGES = {
    'nothing' => [->(path) { File.write(path, '') }, 'no whole message'],
    'half a head' => [->(path) { File.write(path, '{"kind":"catalog","hea') }, 'no whole message'],
    'no JSON' => [->(path) { File.write(path, "\xff\0\nbody") }, 'no whole message'],
    'deep JSON' => [->(path) { File.write(path, "#{'[' * 5000}\nbody") }, 'no whole message'],
    'a list' => [->(path) { File.write(path, "[1]\nbody") }, 'no whole message'],
    'a number' => [->(path) { File.write(path, "17\nbody") }, 'no whole message'],
    'no headers' => [->(path) { File.write(path, "{}\nbody") }, 'no whole message'],
    'headers of numbers' => [->(path) { File.write(path, %({"headers":{"certname":1}}\nbody)) }, 'no whole message'],
    'headers of nothing' => [->(path) { File.write(path, %({"headers":{"x":null}}\nbody)) }, 'no whole message'],
    'a head that is too long' => [->(path) { File.write(path, "{#{' ' * 70_000}\nbody") }, 'no whole message'],
    'a pipe' => [->(path) { system('mkfifo', path) }, 'no plain one'],
    'a directory' => [->(path) { Dir.mkdir(path) }, 'no plain one'],
    'a link' => [->(path) { File.symlink('/etc/passwd', path) }, 'no plain one'],
    'a link to itself' => [->(path) { File.symlink(path, path) }, 'no plain one'],
    'a link to nothing' => [->(path) { File.symlink('/nowhere', path) }, 'no plain one'],
    'a socket' => [->(path) { UNIXServer.new(path).close }, 'no plain one'],
    'a second name' => [->(path) { File.write("#{path}.other", "{}\nbody") && File.link("#{path}.other", path) }, 'no plain one']
  }.freeze

  def test_what_is_no_message_is_told_set_aside_and_stops_nothing
    NO_MESSAGES.each do |what, (make, told)|
      setup
      found = spool(memory: 0)
      found.push(catalog_of('a'))
      path = File.join(@directory, '00000000000000000001-ab-000000001-r0.msg')
      make.call(path)
      assert_equal %w[a], names(Timeout.timeout(10) { found.take(5, 1000) }), what
      assert_includes @log.texts(:err).first.to_s, told, what
      assert_equal 1, @counters[:lost], what
      assert_equal [File.basename(path)], Dir.children(File.join(@directory, 'rejected')), what
      teardown
    end
  end

  def test_room_is_made_of_what_is_no_message_too
    found = spool(memory: 0, on: disk(700))
    2.times { |n| found.push(catalog_of("n#{n}", 'x' * 200)) }
    File.write(File.join(@directory, '00000000000000000001-ab-000000001-r0.msg'), 'y' * 1000)
    @clock.now += Q::Disk::USAGE_TTL_S + 1
    found.push(catalog_of('n2', 'x' * 100))
    assert_equal %w[n0 n1 n2], names(found.take(10, 10_000))
  end

  # A disk that has become read-only under a message's feet.
  def test_what_cannot_be_given_back_now_keeps_nobody_else_from_it
    stubborn = disk
    found = spool(on: stubborn)
    2.times { |n| found.push(catalog_of("n#{n}")) }
    found.spill
    found.push(catalog_of('n2'))
    taken = found.take(10, 1000)
    aside = "#{@directory}.aside"
    File.rename(@directory, aside)
    File.write(@directory, 'no directory')
    found.give_back(taken)
    assert_equal %w[n2], names(found.take(10, 1000))
    File.delete(@directory)
    File.rename(aside, @directory)
    @time += Q::Disk::CLAIM_TTL_S + Time.now.to_i
    @clock.now += Q::Disk::USAGE_TTL_S + 1
    assert_equal %w[n0 n1], names(found.take(10, 1000))
  end

  def test_two_runtimes_share_a_directory_and_nobody_gets_a_message_twice
    mine = spool(memory: 0)
    20.times { |n| mine.push(catalog_of(format('n%02d', n))) }
    others = spool(memory: 0)
    taken = []
    10.times { taken.concat(names(mine.take(1, 1000))).concat(names(others.take(1, 1000))) }
    assert_equal (0...20).map { |n| format('n%02d', n) }, taken.sort
  end

  def test_two_threads_drain_one_directory_without_a_double
    fill = spool(memory: 0)
    200.times { |n| fill.push(catalog_of(format('n%03d', n))) }
    threads = Array.new(2) do
      Thread.new do
        mine = spool(memory: 0)
        taken = []
        until (batch = mine.take(3, 100_000)).empty?
          taken.concat(names(batch))
          batch.each { |message| mine.done(message) }
        end
        taken
      end
    end
    assert_equal (0...200).map { |n| format('n%03d', n) }, threads.flat_map(&:value).sort
  end

  def test_the_claim_of_a_dead_runtime_is_given_back
    dead = spool(memory: 0)
    dead.push(catalog_of('a'))
    dead.take(1, 1000)
    assert_empty spool.take(1, 1000)
    @time += Q::Disk::CLAIM_TTL_S + Time.now.to_i # the claim's age is told by the file system's clock
    assert_equal %w[a], names(spool.take(1, 1000))
  end

  def test_files_of_others_and_broken_files_stop_nothing
    found = spool(memory: 0)
    found.push(catalog_of('a'))
    File.write(File.join(@directory, 'README'), 'hello')
    File.write(File.join(@directory, '00000000000000000001-ab-000000001-r0.msg'), 'cut short')
    File.write(File.join(@directory, '00000000000000000002-ab-000000001-r0.msg'), "[1]\nbody")
    assert_equal %w[a], names(found.take(5, 1000))
  end

  def test_a_refused_message_goes_behind_and_after_three_refusals_aside
    found = spool(memory: 0)
    found.push(catalog_of('bad'))
    found.push(catalog_of('good'))
    3.times do |round|
      taken = found.take(1, 1000).first
      taken = found.take(1, 1000).first if taken.certname == 'good'
      assert_equal 'bad', taken.certname
      found.refused(taken, 'too large', counts: true, refusals_max: 3)
      @clock.now += 10
      assert_equal round == 2 ? 1 : 0, @counters[:lost]
    end
    assert_equal 1, Dir.children(File.join(@directory, 'rejected')).length
    assert_includes @log.texts(:err).first, 'catalog of bad'
  end

  def test_closing_writes_what_is_in_memory_and_what_is_under_way
    found = spool
    3.times { |n| found.push(catalog_of("n#{n}")) }
    found.take(1, 1000)
    found.close
    found.push(catalog_of('late'))
    assert_equal %w[late n0 n1 n2], names(spool.take(10, 1000)).sort
  end

  def test_spool_files_are_for_their_owner_only
    spool(memory: 0).push(catalog_of('a'))
    modes = [@directory, *Dir.glob(File.join(@directory, '*'))].map { |file| File.stat(file).mode & 0o077 }
    assert_equal [0, 0], modes
  end
end
