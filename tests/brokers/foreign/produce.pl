# Sends files with Perl's Net::Stomp, persistent and with receipts: PORT USER PASSWORD QUEUE text|bytes FILE...
# "text" is what it does by itself, without content-length; "bytes" is its bytes_message.
use strict;
use warnings;
use Net::Stomp;

my ($port, $user, $password, $queue, $form, @files) = @ARGV;
my $stomp = Net::Stomp->new({hostname => '127.0.0.1', port => $port});
my $answer = $stomp->connect({login => $user, passcode => $password});
die 'not let in' unless $answer->command eq 'CONNECTED';
for my $file (@files) {
    open my $handle, '<:raw', $file or die "$file: $!";
    my $body = do { local $/; <$handle> };
    my %more = $form eq 'bytes' ? (bytes_message => 1) : ();
    $stomp->send_with_receipt({destination => $queue, body => $body, persistent => 'true', timeout => 60, %more})
        or die "no receipt for $file";
}
$stomp->disconnect;
