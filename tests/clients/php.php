<?php // php.php NAME...: what PHP says
function say($what, $list) {
    if (is_array($list)) {
        $list = array_map(function ($x) { unset($x['ttl'], $x['entries']); ksort($x); return json_encode($x); }, $list);
        sort($list);
    }
    echo $what, ' ', json_encode($list), "\n";
}
foreach (array_slice($argv, 1) as $name) {
    say("$name A", @dns_get_record($name, DNS_A));
    say("$name AAAA", @dns_get_record($name, DNS_AAAA));
    $list = gethostbynamel($name);
    if (is_array($list)) sort($list);
    echo $name, ' ', json_encode($list), "\n";
}
foreach (['signed' => DNS_MX, '_sip._tcp.signed' => DNS_SRV, 'naptr.signed' => DNS_NAPTR, 'www.signed' => DNS_CAA, 'big.signed' => DNS_TXT] as $name => $type)
    say($name, @dns_get_record($name, $type));
