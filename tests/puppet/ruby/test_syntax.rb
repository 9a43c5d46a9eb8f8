# frozen_string_literal: true

require_relative 'helper'
require 'ripper'

# puppetserver 7 has JRuby 9.3, which is Ruby 2.6: one newer construct means HTTP 500 for every agent.
class TestSyntax < Minitest::Test
  FILES = Dir.glob(File.join(LIB, '**', '*.rb')).freeze
  # Methods that came with 2.7 or later, by name: whoever calls one means that one.
  NEW_METHODS = %w[filter_map tally intersection intersect? except deconstruct deconstruct_keys
                   byteindex byterindex bytesplice const_source_location].freeze

  # [what, line] for everything in the code that Ruby 2.6 does not know.
  def self.newer(code)
    found = []
    walk(Ripper.sexp(code) || raise(SyntaxError, 'no Ruby at all')) { |node| found << [what(node), line_of(node)] if what(node) }
    found
  end

  def self.walk(node, &block)
    return unless node.is_a?(Array)

    yield node if node.first.is_a?(Symbol)
    node.each { |child| walk(child, &block) }
  end

  def self.what(node)
    case node.first
    when :args_forward then 'argument forwarding (2.7)'
    when :in, :aryptn, :hshptn, :fndptn then 'pattern matching (2.7)'
    when :def then 'endless method (3.0)' unless bodies?(node[3])
    when :defs then 'endless method (3.0)' unless bodies?(node[5])
    when :assoc_new then 'hash shorthand (3.1)' if node[2].nil?
    when :dot2, :dot3 then 'beginless range (2.7)' if node[1].nil?
    when :blockarg then 'anonymous block (3.1)' if node[1].nil?
    when :@ident then numbered_or_new(node[1])
    end
  end

  # A usual method has a list of statements, an endless one a single expression.
  def self.bodies?(node)
    node.first == :bodystmt && node[1].first.is_a?(Array)
  end

  def self.numbered_or_new(name)
    return 'numbered parameter (2.7)' if name =~ /\A_[1-9]\z/

    "method #{name} (2.7 or later)" if NEW_METHODS.include?(name)
  end

  def self.line_of(node)
    return node[2].first if node.first.to_s.start_with?('@')

    node.each do |child|
      line = child.is_a?(Array) && !child.empty? ? line_of(child) : nil
      return line if line
    end
    nil
  end

  def test_every_file_is_ruby_two_six
    refute_empty FILES
    FILES.each { |file| assert_empty TestSyntax.newer(File.read(file, encoding: 'UTF-8')), file }
  end

  def test_the_check_finds_each_newer_construct
    ['def a = 1', 'def self.a = 1', 'def a(...); b(...); end', 'case x; in [a]; end', 'x => {a:}', 'f(a:)', '[1].each { p _1 }',
     'x[..1]', 'def a(&); b(&); end', 'x.filter_map { |y| y }', 'x&.tally', 'h.except(:a)'].each do |code|
      refute_empty TestSyntax.newer(code), code
    end
  end

  def test_the_check_lets_ruby_two_six_pass
    ['def a; 1; end', 'def self.a; 1; end', 'x&.y', 'x[1..]', '{ a: 1 }', 'def a(&block); b(&block); end', 'a rescue b',
     'def a; b; rescue C; d; end', 'x.then { |y| y }'].each do |code|
      assert_empty TestSyntax.newer(code), code
    end
  end
end
