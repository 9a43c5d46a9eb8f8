# frozen_string_literal: true

# The spool's directory while somebody works in it.
#
# root publishes too (puppet catalog compile), into a directory that is another user's. Whatever that one puts there or
# swaps meanwhile, a link above all, root must neither follow nor give away. So root works in the directory that it
# has opened, not in what has its name now: Ruby knows no openat, but on Linux a path below /proc/self/fd/N starts
# there. Everybody else has nothing to lose but what is theirs; what others put there is nobody's message all the same.

require 'fileutils'

module PuppetX
  module CatalogQueue
    class Folder
      LINKS_MAX = 40 # as Linux counts them
      FLAGS = { read: File::RDONLY, create: File::WRONLY | File::CREAT | File::EXCL }.freeze
      NO_LINKS = File::NOFOLLOW | File::NONBLOCK
      # JRuby's descriptors are its own.
      DESCRIPTORS = RUBY_ENGINE != 'jruby' && File.directory?('/proc/self/fd')
      NO_WAY = 'its owner could lead root astray here: publish as its owner'

      # Yields the directory. Raises SystemCallError: there is none (and create does not say to make it), or it is none
      # that root may work in.
      def self.open(directory, create: false)
        return yield(plain(directory, create)) if !Process.euid.zero? || (!DESCRIPTORS && roots_alone?(directory))

        opened = Descent.new(directory, create).directory
        begin
          yield new("/proc/self/fd/#{opened.fileno}", opened.stat)
        ensure
          opened.close
        end
      end

      def self.plain(directory, create)
        FileUtils.mkdir_p(directory, mode: 0o700) if create && !File.directory?(directory)
        new(directory, nil)
      end
      private_class_method :plain

      # Whether nobody but root can change what stands on the way there.
      def self.roots_alone?(directory)
        path = File.expand_path(directory)
        path = File.dirname(path) until File.exist?(path) || File.symlink?(path)
        steps = [path]
        steps << File.dirname(steps.last) until steps.last == '/'
        steps.all? do |step|
          stat = File.lstat(step)
          # In a directory like /tmp nobody moves what is root's.
          stat.directory? && stat.uid.zero? && ((stat.mode & 0o022).zero? || (stat.sticky? && step != path))
        end
      end
      private_class_method :roots_alone?

      # owner: File::Stat of the directory when it is root who works here.
      def initialize(path, owner)
        @path = path
        @owner = owner
      end

      def names
        Dir.children(@path)
      end

      # A new file with these bytes; the directory's owner gets it.
      def create(name, bytes)
        File.open(path(name), FLAGS[:create] | File::BINARY | guard, 0o600) do |file|
          file.write(bytes)
          file.chown(@owner.uid, @owner.gid) if @owner && !@owner.uid.zero?
        end
      end

      # The bytes of a file, which counts as touched from now on. Raises EPERM when it is no plain file of the owner's.
      def take(name)
        # Opened, a pipe would be waited for for ever.
        raise Errno::EPERM, name unless @owner || File.lstat(path(name)).file?

        File.open(path(name), FLAGS[:read] | File::BINARY | guard) do |file|
          raise Errno::EPERM, name unless ours?(file.stat)

          File.utime(nil, nil, @owner ? "/proc/self/fd/#{file.fileno}" : path(name))
          file.binmode.read
        end
      end

      def rename(name, other_name, other = self)
        File.rename(path(name), other.path(other_name))
      end

      def delete(name)
        File.delete(path(name))
      rescue SystemCallError
        nil
      end

      def size(name)
        File.lstat(path(name)).size
      rescue SystemCallError
        0
      end

      def mtime(name)
        File.lstat(path(name)).mtime
      end

      # A directory in this one, made when it is not there.
      def folder(name, &block)
        return self.class.open(path(name), create: true, &block) if @owner.nil?

        opened = Descent.step(@path, @owner, name, true)
        begin
          yield self.class.new("/proc/self/fd/#{opened.fileno}", opened.stat)
        ensure
          opened.close
        end
      end

      def path(name)
        File.join(@path, name)
      end

      private

      def guard
        @owner ? NO_LINKS : 0
      end

      # What the directory's owner or root has written there: no pipe, and no second name of a file that lies elsewhere. In
      # a directory that others may write into, a message of theirs would be published as ours.
      def ours?(stat)
        stat.file? && stat.nlink == 1 && [0, @owner ? @owner.uid : Process.euid].include?(stat.uid)
      end

      # The way from / to a directory, one open directory after the other. Links count only where nobody but root could have
      # put them.
      class Descent
        attr_reader :directory

        def initialize(path, create)
          raise Errno::EPERM, "#{path}: #{NO_WAY}" unless DESCRIPTORS

          @links = 0
          @names = names_in(File.expand_path(path))
          @directory = File.open('/')
          descend(create) until @names.empty?
        rescue SystemCallError
          @directory.close if @directory
          raise
        end

        # The directory of that name in the one that is open as path. Its parent's owner gets one that is made.
        def self.step(path, parent, name, create)
          here = File.join(path, name)
          begin
            made = false
            opened = File.open(here, FLAGS[:read] | NO_LINKS)
          rescue Errno::ENOENT
            raise unless create

            Dir.mkdir(here, 0o700)
            made = true
            opened = File.open(here, FLAGS[:read] | NO_LINKS)
          end
          check(opened, here)
          give(opened, parent) if made && !parent.uid.zero?
          opened
        end

        def self.check(opened, here)
          return if opened.stat.directory?

          opened.close
          raise Errno::ENOTDIR, here
        end
        private_class_method :check

        # Only what can be the new one: somebody may have put another in its place.
        def self.give(opened, parent)
          stat = opened.stat
          return unless stat.uid.zero? && (stat.mode & 0o7777) == 0o700 && Dir.empty?("/proc/self/fd/#{opened.fileno}")

          opened.chown(parent.uid, parent.gid)
        end
        private_class_method :give

        private

        def descend(create)
          name = @names.shift
          path = "/proc/self/fd/#{@directory.fileno}"
          stat = @directory.stat
          here = File.join(path, name)
          return follow(here) if roots?(stat) && File.symlink?(here)

          enter(self.class.step(path, stat, name, create))
        end

        def follow(here)
          raise Errno::ELOOP, here if (@links += 1) > LINKS_MAX

          target = File.readlink(here)
          enter(File.open('/')) if target.start_with?('/')
          @names = names_in(target) + @names
        end

        def enter(opened)
          @directory.close
          @directory = opened
        end

        def names_in(path)
          path.split('/').reject { |name| name.empty? || name == '.' }
        end

        # Nobody but root can change what is in it.
        def roots?(stat)
          stat.uid.zero? && (stat.mode & 0o022).zero?
        end
      end
      private_constant :Descent
    end
  end
end
