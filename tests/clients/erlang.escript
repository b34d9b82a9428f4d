#!/usr/bin/env escript
%% erlang.escript NAME...: what Erlang's own resolver (inet_res) says
say(Name, Type) ->
    case inet_res:resolve(Name, in, Type, [{timeout, 4000}]) of
        {ok, Msg} -> io:format("~s ~w ~0p~n", [Name, Type, lists:sort([inet_dns:rr(R, data) || R <- inet_dns:msg(Msg, anlist)])]);
        {error, Why} -> io:format("~s ~p ~p~n", [Name, Type, Why])
    end.

main(Names) ->
    inet_db:set_lookup([dns]),
    inet_db:res_update_conf(),
    [say(N, T) || N <- Names, T <- [a, aaaa]],
    [say(N, T) || {N, T} <- [{"signed", mx}, {"_sip._tcp.signed", srv}, {"naptr.signed", naptr}, {"big.signed", txt}]].
