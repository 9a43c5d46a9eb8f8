# @summary Installs and configures puppet-ingest: the engine, and PuppetDB's HTTP interface where it is wanted.
#
# With nothing named, everything is on this one box: a broker, a PostgreSQL and the engine.
#
# @param package_source
#   The .deb on this machine; undef takes the package from the configured repositories.
# @param package_ensure
#   A version, `present` or `latest`.
# @param queue_source
#   The brokers, without passwords; undef: the embedded one.
# @param broker_password
#   Handed to the unit as a credential, readable for root alone.
# @param database
#   A conninfo, with its password; handed over the same way. undef: the embedded PostgreSQL.
# @param settings
#   Whatever else stands in ingest.toml, by the names of the settings.
# @param serve
#   Whether PuppetDB's HTTP interface runs, too.
# @param ensure
#   Whether the engine runs.
# @example One box
#   include catalog_queue::engine
# @example With a broker and a database
#   class { 'catalog_queue::engine':
#     queue_source    => 'stomp+ssl://ingest@broker.example.com:61614',
#     broker_password => Sensitive(lookup('ingest_broker_password')),
#     database        => Sensitive('host=db.example.com dbname=puppet user=ingest password=...'),
#     settings        => { 'workers' => 4, 'report_ttl_s' => '30d' },
#   }
class catalog_queue::engine (
  Optional[Pattern[/\A\//]] $package_source = undef,
  String[1] $package_ensure = 'present',
  Optional[String[1]] $queue_source = undef,
  Optional[Sensitive[String[1]]] $broker_password = undef,
  Optional[Sensitive[String[1]]] $database = undef,
  Hash[Pattern[/\A[a-z][a-z0-9_]*\z/], Variant[String, Integer, Float, Boolean, Array[String]]] $settings = {},
  Boolean $serve = false,
  Enum['running', 'stopped'] $ensure = 'running',
) {
  $directory = '/etc/puppet-ingest'
  $named = $queue_source ? {
    undef   => {},
    default => { 'queue_source' => $queue_source },
  }
  # A password in ingest.toml would be in every report and catalog: those are credentials.
  $forbidden = ['database', 'http_database'].filter |$name| { $name in $settings }
  unless $forbidden.empty {
    fail("catalog_queue::engine: ${forbidden.join(' and ')} may hold a password: use the parameter database")
  }

  $provider = $package_source ? {
    undef   => undef,
    default => 'dpkg',
  }
  package { 'puppet-ingest':
    ensure   => $package_ensure,
    source   => $package_source,
    provider => $provider,
  }

  $defaults = { 'data_dir' => '/var/lib/puppet-ingest' }
  file { "${directory}/ingest.toml":
    ensure  => file,
    owner   => 'root',
    group   => 'puppet-ingest',
    mode    => '0640',
    content => epp('catalog_queue/ingest.toml.epp', { 'settings' => $defaults + $named + $settings }),
    require => Package['puppet-ingest'],
    notify  => Service['puppet-ingest'],
  }

  $secrets = { 'broker-password' => $broker_password, 'database' => $database }
  $secrets.each |$name, $secret| {
    if $secret =~ Undef {
      $file = { 'ensure' => absent }
    } else {
      $file = { 'ensure' => file, 'content' => Sensitive("${secret.unwrap}\n") }
    }
    file { "${directory}/credentials/${name}":
      owner     => 'root',
      group     => 'root',
      mode      => '0600',
      show_diff => false,
      backup    => false,
      require   => Package['puppet-ingest'],
      notify    => Service['puppet-ingest'],
      *         => $file,
    }
  }

  service { 'puppet-ingest':
    ensure => $ensure,
    enable => $ensure == 'running',
  }

  $front = $serve ? {
    true    => $ensure,
    default => 'stopped',
  }
  service { 'puppet-ingest-serve':
    ensure    => $front,
    enable    => $front == 'running',
    subscribe => Service['puppet-ingest'],
  }
}
