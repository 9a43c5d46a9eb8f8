# frozen_string_literal: true

require_relative 'helper'
require 'etc'
require 'puppet_x/catalog_queue/counters'
require 'puppet_x/catalog_queue/spool'

# root publishes through a spool that is somebody else's: what that one puts there leads root nowhere.
class TestFolder < Minitest::Test
  include Helper

  SECRET = %({"kind":"catalog","headers":{"certname":"stolen"}}\nsecret)

  def setup
    @root = Dir.mktmpdir
    File.chmod(0o755, @root)
    @home = File.join(@root, 'home') # as Puppet's vardir: its owner may swap anything in it
    @directory = File.join(@home, 'spool')
    Dir.mkdir(@home)
    @victim = File.join(@root, 'victim')
    Dir.mkdir(@victim, 0o755)
    @file = File.join(@victim, 'file')
    File.write(@file, SECRET)
    File.chmod(0o600, @file)
    @log = Log.new
  end

  def teardown
    FileUtils.rm_rf(@root)
  end

  # Runs the block's work as root, in a home of nobody's.
  def owned
    skip 'only root can be led astray' unless Process.euid.zero?
    @owner = Etc.getpwnam('nobody')
    File.chown(@owner.uid, @owner.gid, @home)
  end

  # The block as the spool's owner, in a process of its own; gives its pid.
  def as_owner(&block)
    fork do
      Process::Sys.setgid(@owner.gid)
      Process::Sys.setuid(@owner.uid)
      at_exit { exit! }
      block.call
      exit!(true)
    end
  end

  def owner_does(&block)
    assert Process.wait2(as_owner(&block)).last.success?
  end

  def spool
    Q::Spool.new(0, Q::Disk.new(@directory, 1_000_000), Q::Counters.new, @log)
  end

  def untouched
    [@victim, @file].map { |path| File.lstat(path) }.map { |stat| [stat.uid, stat.mode, stat.mtime] } + [Dir.children(@victim)]
  end

  def assert_untouched
    before = untouched
    yield
    assert_equal before, untouched
  end

  def test_what_root_writes_belongs_to_the_spools_owner
    owned
    spool.push(catalog_of('a'))
    stats = [@directory, *Dir.glob(File.join(@directory, '*'))].map { |path| File.lstat(path) }
    assert_equal [@owner.uid] * 2, stats.map(&:uid)
    assert_equal [0o700, 0o600], stats.map { |stat| stat.mode & 0o777 }
    taken = nil
    owner_does { taken = spool.take(1, 1000) or raise }
  end

  def test_a_temporary_file_that_is_swapped_gives_nothing_away
    owned
    spool.push(catalog_of('a'))
    directory, file = @directory, @file
    swapper = as_owner do
      loop do
        (Dir.children(directory) - ['.']).each do |name|
          path = File.join(directory, name)
          begin
            File.delete(path)
            File.symlink(file, path)
          rescue SystemCallError
            nil
          end
        end
      end
    end
    assert_untouched { 400.times { |n| spool.push(catalog_of("n#{n}")) } }
  ensure
    Process.kill(:KILL, swapper) && Process.wait(swapper) if swapper
  end

  def test_a_directory_that_is_swapped_gives_nothing_away
    owned
    directory, victim = @directory, @victim
    swapper = as_owner do
      loop do
        begin
          File.rename(directory, "#{directory}.#{rand(10**9)}")
          File.symlink(victim, directory)
          sleep 0.0001
          File.delete(directory)
        rescue SystemCallError
          nil
        end
      end
    end
    assert_untouched { 400.times { |n| spool.push(catalog_of("n#{n}")) } }
  ensure
    Process.kill(:KILL, swapper) && Process.wait(swapper) if swapper
  end

  def test_a_link_in_the_place_of_the_directory_is_not_followed
    owned
    owner_does { File.symlink(@victim, @directory) }
    assert_untouched { spool.push(catalog_of('a')) }
    assert_includes @log.texts(:err).first, 'cannot be written'
    assert_empty spool.take(1, 1000)
  end

  def test_a_link_further_up_is_not_followed
    owned
    deep = File.join(@victim, 'spool')
    Dir.mkdir(deep)
    owner_does { File.symlink(@victim, File.join(@home, 'link')) }
    @directory = File.join(@home, 'link', 'spool')
    assert_untouched { spool.push(catalog_of('a')) }
    assert_empty Dir.children(deep)
  end

  def test_a_link_that_root_has_made_is_followed
    owned
    File.symlink(@home, File.join(@root, 'link')) # in a directory of root's
    inside = @directory
    @directory = File.join(@root, 'link', 'spool')
    spool.push(catalog_of('a'))
    assert_equal 1, Dir.children(inside).length
  end

  def test_a_link_in_the_place_of_a_message_is_not_read
    owned
    spool.push(catalog_of('a'))
    name = Dir.children(@directory).first
    owner_does do
      Dir.chdir(@directory)
      File.symlink(@file, name.sub('-r0', '-r1'))
      system('mkfifo', name.sub('-r0', '-r2'))
      Dir.mkdir(name.sub('-r0', '-r3'))
      File.symlink(@victim, name.sub('-r0', '-r4'))
    end
    assert_untouched { assert_equal(%w[a], spool.take(10, 10_000).map(&:certname)) }
  end

  def test_a_second_name_of_a_file_that_lies_elsewhere_is_not_read
    owned
    spool.push(catalog_of('a'))
    File.link(@file, File.join(@directory, Dir.children(@directory).first.sub('-r0', '-r1')))
    assert_equal(%w[a], spool.take(10, 10_000).map(&:certname))
  end

  # Made by somebody else in a directory that is open to all: it would be published under our login.
  def test_a_message_that_somebody_else_has_put_there_is_not_published
    owned
    directory = @directory
    Dir.mkdir(directory)
    File.chmod(0o777, directory)
    File.chown(@owner.uid, @owner.gid, directory)
    daemon = Etc.getpwnam('daemon')
    forged = File.join(directory, '00000000000000000001-ab-000000001-r0.msg')
    File.write(forged, SECRET)
    File.chmod(0o644, forged)
    File.chown(daemon.uid, daemon.gid, forged)
    log = File.join(@root, 'log')
    File.write(log, '')
    File.chmod(0o666, log)
    owner_does do
      found = spool
      found.push(catalog_of('a'))
      names = found.take(5, 1000).map(&:certname)
      File.write(log, [names, @log.texts(:err)].inspect)
      File.exist?(File.join(directory, 'rejected', File.basename(forged))) or raise
    end
    assert_match(/\A\[\["a"\], \["[^"]*is no plain one of the spool's owner/, File.read(log))
  end

  def test_rejected_messages_go_into_no_link
    owned
    spool.push(catalog_of('a'))
    owner_does { File.symlink(@victim, File.join(@directory, 'rejected')) }
    found = spool
    taken = found.take(1, 1000).first
    assert_untouched { found.refused(taken, 'too large', counts: true, refusals_max: 1) }
  end

  def test_rejected_messages_are_their_owners
    owned
    spool.push(catalog_of('a'))
    found = spool
    found.refused(found.take(1, 1000).first, 'too large', counts: true, refusals_max: 1)
    assert_equal @owner.uid, File.lstat(File.join(@directory, 'rejected')).uid
    assert_equal 1, Dir.children(File.join(@directory, 'rejected')).length
  end

  # As on JRuby: no descriptors to work with.
  def test_without_descriptors_root_keeps_to_what_is_its_own
    owned
    code = <<~RUBY
      $LOAD_PATH.unshift(#{LIB.inspect})
      require 'puppet_x/catalog_queue/folder'
      Folder = PuppetX::CatalogQueue::Folder
      Folder.send(:remove_const, :DESCRIPTORS)
      Folder.const_set(:DESCRIPTORS, false)
      ARGV.each do |directory|
        puts begin
          Folder.open(directory, create: true) { |folder| folder.create('x', 'y') }
          'written'
        rescue Errno::EPERM
          'refused'
        end
      end
    RUBY
    own = File.join(@root, 'own', 'spool')
    linked = File.join(@root, 'linked')
    File.symlink(@home, linked)
    answers = IO.popen([RbConfig.ruby, '-e', code, @directory, own, File.join(linked, 'spool')], &:read).split
    assert_equal %w[refused written refused], answers
  end
end
