# ruby.rb NAME...: what Ruby's resolv says
require 'resolv'

def say(what)
  puts "#{what} #{yield.map(&:to_s).sort}"
rescue => e
  puts "#{what} #{e.class}"
end

Resolv::DNS.open do |dns|
  a, aaaa, mx, srv, txt = %i[A AAAA MX SRV TXT].map { |t| Resolv::DNS::Resource::IN.const_get(t) }
  ARGV.each do |name|
    say(name + ' A') { dns.getresources(name, a).map(&:address) }
    say(name + ' AAAA') { dns.getresources(name, aaaa).map(&:address) }
    say(name) { dns.getaddresses(name) }
  end
  say('MX') { dns.getresources('signed', mx).map { |x| "#{x.preference} #{x.exchange}" } }
  say('SRV') { dns.getresources('_sip._tcp.signed', srv).map { |x| "#{x.port} #{x.target}" } }
  say('TXT') { dns.getresources('big.signed', txt).map { |x| x.strings.join } }
end
