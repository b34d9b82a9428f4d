#!/usr/bin/env escript
%% erlang.escript NAME TYPE...: what Erlang's own resolver (inet_res) says
main([]) -> ok;
main([Name, Type | More]) ->
    case catch inet_res:resolve(Name, in, list_to_atom(string:lowercase(Type)), [{timeout, 4000}]) of
        {ok, Msg} -> io:format("~s ~s ~0p~n", [Name, Type, lists:sort([inet_dns:rr(R, data) || R <- inet_dns:msg(Msg, anlist)])]);
        {error, Why} -> io:format("~s ~s ~0p~n", [Name, Type, Why]);
        _ -> io:format("~s ~s is no type that it knows~n", [Name, Type])
    end,
    main(More).
