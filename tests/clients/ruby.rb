# ruby.rb NAME TYPE...: what Ruby's resolv says
require 'resolv'

Resolv::DNS.open do |dns|
  ARGV.each_slice(2) do |name, type|
    said = dns.getresources(name, Resolv::DNS::Resource::IN.const_get(type))
    said = said.map { |r| (r.instance_variables - [:@ttl]).map { |v| r.instance_variable_get(v).to_s } }.sort
    puts "#{name} #{type} #{said}".gsub(/0x\h+/, '')
  rescue => e
    puts "#{name} #{type} #{e.class}"
  end
end
